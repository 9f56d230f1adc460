/* The clients' half of HTTP in C: one thread, epoll, so many connections, one request at a time on each.
 *
 * A program gives `next_request`, which puts the next one into a connection and says whether there was one, and
 * `answered`, which looks at a whole answer; then it calls `exchange`.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_IN_FLIGHT 1024
#define MAX_REQUEST 131072

typedef struct {
    int fd, waiting, events; /* waiting for room to send; events in the request */
    const char *unsent;
    size_t left, length;
    char *own;           /* room for a request that is made here */
    char answer[16384];
} Connection;

static Connection connections[MAX_IN_FLIGHT];
static uint64_t requests_sent, refused, delivered;
static int poller;

static int next_request(Connection *c);
static int answered(const Connection *c, const char *body, const char *end);

static void die(const char *what) {
    perror(what);
    exit(1);
}

static double seconds(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void watch(Connection *c, int change) {
    struct epoll_event event = {.events = EPOLLIN | (c->left ? EPOLLOUT : 0), .data.ptr = c};
    if (epoll_ctl(poller, change, c->fd, &event)) die("epoll_ctl");
}

static void push(Connection *c) {
    int waited = c->waiting;
    ssize_t n = send(c->fd, c->unsent, c->left, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN) die("send");
    if (n > 0) c->unsent += n, c->left -= (size_t)n;
    c->waiting = c->left > 0;
    if (c->waiting != waited) watch(c, EPOLL_CTL_MOD);
}

static int send_next(Connection *c) {
    if (!next_request(c)) return 0;
    c->length = 0;
    requests_sent++;
    push(c);
    return 1;
}

/* Whether the answer is there as a whole. */
static int whole(Connection *c) {
    char *body = memmem(c->answer, c->length, "\r\n\r\n", 4);
    if (!body) return 0;
    body += 4;
    char *length = strcasestr(c->answer, "content-length:");
    if (!length || length > body) die("an answer without a length");
    char *end = body + strtoul(length + 15, NULL, 10);
    if (c->answer + c->length < end) return 0;
    if (c->answer[9] == '2' && answered(c, body, end)) delivered += (uint64_t)c->events;
    else refused++;
    return 1;
}

/* Sends all requests, and prints what it took as JSON. */
static void exchange(int port, int in_flight) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int busy = 0, yes = 1;
    double cpu = seconds(CLOCK_PROCESS_CPUTIME_ID), wall = seconds(CLOCK_MONOTONIC);
    poller = epoll_create1(0);
    for (int n = 0; n < in_flight && n < MAX_IN_FLIGHT; n++) {
        Connection *c = &connections[n];
        c->fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(c->fd, (struct sockaddr *)&address, sizeof address)) die("connect");
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        fcntl(c->fd, F_SETFL, O_NONBLOCK);
        watch(c, EPOLL_CTL_ADD);
        busy += send_next(c);
    }
    while (busy) {
        struct epoll_event events[256];
        int ready = epoll_wait(poller, events, 256, -1);
        for (int n = 0; n < ready; n++) {
            Connection *c = events[n].data.ptr;
            if (c->left) push(c);
            if (!(events[n].events & EPOLLIN)) continue;
            ssize_t got = recv(c->fd, c->answer + c->length, sizeof c->answer - 1 - c->length, 0);
            if (got <= 0) die("recv");
            c->length += (size_t)got;
            c->answer[c->length] = 0;
            if (whole(c) && !send_next(c)) busy--;
        }
    }
    wall = seconds(CLOCK_MONOTONIC) - wall;
    cpu = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    printf("{\"requests\":%lu,\"refused\":%lu,\"delivered\":%lu,\"seconds\":%.6f,\"cpu_seconds\":%.6f}\n",
        requests_sent, refused, delivered, wall, cpu);
}
