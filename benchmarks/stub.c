/* All four vendors' APIs as one HTTP/1.1 server on loopback, faster than any client: one thread, epoll.
 *
 *   stub [-l latency_ms] [-p port] [-c capture_file]
 *
 * Prints its port, then answers until it is killed. Each request is answered with the vendor's documented success, at
 * once or a fixed time after it came. GET /stats tells what was received. With -c every request is also written to a
 * file, as it came: length (4 bytes, little endian) and bytes.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define MAX_FD 65536
#define LISTENER UINT64_MAX
#define TIMER (UINT64_MAX - 1)


typedef struct {
    char *bytes;
    size_t length, capacity;
} Buffer;

typedef struct {
    uint32_t generation; /* tells a connection from an earlier one with the same number */
    int open, writing, waiting;
    Buffer in, out;
} Connection;

typedef struct { /* an answer that is due later; they leave in the order in which they came */
    uint64_t due;
    int fd;
    uint32_t generation;
    Buffer answer;
} Due;

static Connection connections[MAX_FD];
static Due *queue;
static size_t queue_head, queue_length, queue_capacity;
static int poller, timer;
static uint64_t latency;
static FILE *capture;
static struct {
    uint64_t requests, events, body_bytes, connections, connections_max, accepted, in_flight, in_flight_max;
    uint64_t first, last, malformed;
} stats;

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void reserve(Buffer *buffer, size_t more) {
    if (buffer->length + more <= buffer->capacity) return;
    while (buffer->capacity < buffer->length + more) buffer->capacity = buffer->capacity ? buffer->capacity * 2 : 4096;
    buffer->bytes = realloc(buffer->bytes, buffer->capacity);
    if (!buffer->bytes) die("realloc");
}

static void append(Buffer *buffer, const char *bytes, size_t length) {
    reserve(buffer, length);
    memcpy(buffer->bytes + buffer->length, bytes, length);
    buffer->length += length;
}

static void drop(Buffer *buffer, size_t length) {
    buffer->length -= length;
    memmove(buffer->bytes, buffer->bytes + length, buffer->length);
}

/* ---- what the vendors say -------------------------------------------------------------------------------------- */

/* How often a key occurs. Inside a JSON text its quotes would be escaped, so that a text cannot pass for a key. */
static size_t count_key(const char *body, size_t length, const char *quoted) {
    size_t found = 0, size = strlen(quoted);
    const char *end = body + length;
    while ((body = memmem(body, (size_t)(end - body), quoted, size)) != NULL) body += size, found++;
    return found;
}

/* One result for each command, with its command_id. */
static size_t bloomreach_batch(const char *body, size_t length, Buffer *answer) {
    static const char key[] = "\"command_id\"", head[] = "{\"success\":true,\"command_id\":\"";
    const char *end = body + length, *at = body;
    size_t found = 0;
    append(answer, "{\"results\":[", 12);
    while ((at = memmem(at, (size_t)(end - at), key, sizeof key - 1)) != NULL) {
        at += sizeof key - 1;
        while (at < end && (*at == ':' || *at == ' ' || *at == '"')) at++;
        const char *id = at;
        while (at < end && *at != '"') at++;
        if (found++) append(answer, ",", 1);
        append(answer, head, sizeof head - 1);
        append(answer, id, (size_t)(at - id));
        append(answer, "\"}", 2);
    }
    static const char tail[] = "],\"start_time\":1772358600.1,\"end_time\":1772358600.2,\"success\":true}";
    append(answer, tail, sizeof tail - 1);
    return found;
}

static int has(const char *path, size_t length, const char *part) {
    return memmem(path, length, part, strlen(part)) != NULL;
}

/* Writes the answer's body; returns its status. */
static int answer_to(const char *path, size_t path_length, const char *body, size_t length, Buffer *answer) {
    const char *said;
    int status = 200;
    size_t events = 1;
    if (has(path, path_length, "/track/v2/projects/")) {
        if (has(path, path_length, "/batch")) {
            stats.events += bloomreach_batch(body, length, answer);
            return status;
        }
        said = "{\"errors\":[],\"success\":true}";
    } else if (has(path, path_length, "/v1/accounts/")) {
        if (has(path, path_length, "/bulk-events")) events = count_key(body, length, "\"eventName\"");
        status = 201;
        said = "{\"response\":{\"status\":\"queued\"}}";
    } else if (has(path, path_length, "/projects/")) {
        said = "{\"entry_id\":\"entry_0f8fad5bd9cb\",\"contact_id\":\"contact_7c9e6679\",\"project_id\":\"pr_bench\","
               "\"embeddable_id\":\"flow_bench\",\"timestamp\":\"2026-03-01T09:30:00.123Z\","
               "\"custom_event_name\":\"purchase\",\"event_type\":\"custom\"}";
    } else if (has(path, path_length, "/v1/batch")) { /* Segment's wire */
        events = count_key(body, length, "\"messageId\"");
        said = "{\"success\":true}";
    } else if (has(path, path_length, "/event")) {
        said = "{\"results\":{\"message\":\"Event created\"}}";
    } else {
        said = "{\"success\":true}";
    }
    stats.events += events;
    append(answer, said, strlen(said));
    return status;
}

static void write_stats(Buffer *answer) {
    char text[512];
    int length = snprintf(text, sizeof text,
        "{\"requests\":%lu,\"events\":%lu,\"body_bytes\":%lu,\"connections_max\":%lu,\"accepted\":%lu,"
        "\"in_flight_max\":%lu,\"malformed\":%lu,\"first_ns\":%lu,\"last_ns\":%lu}",
        stats.requests, stats.events, stats.body_bytes, stats.connections_max, stats.accepted,
        stats.in_flight_max, stats.malformed, stats.first, stats.last);
    append(answer, text, (size_t)length);
}

/* ---- connections ----------------------------------------------------------------------------------------------- */

static void watch(int fd, uint64_t mark, uint32_t events, int change) {
    struct epoll_event event = {.events = events, .data.u64 = mark};
    if (epoll_ctl(poller, change, fd, &event)) die("epoll_ctl");
}

static void hang_up(int fd) {
    Connection *c = &connections[fd];
    if (!c->open) return;
    stats.in_flight -= (uint64_t)c->waiting;
    c->open = c->writing = c->waiting = 0;
    c->generation++;
    c->in.length = c->out.length = 0;
    stats.connections--;
    close(fd);
}

static void flush(int fd) {
    Connection *c = &connections[fd];
    size_t sent = 0;
    while (sent < c->out.length) {
        ssize_t n = send(fd, c->out.bytes + sent, c->out.length - sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) break;
        if (n < 0) {
            hang_up(fd);
            return;
        }
        sent += (size_t)n;
    }
    drop(&c->out, sent);
    int writing = c->out.length > 0;
    if (writing != c->writing) watch(fd, (uint64_t)fd, EPOLLIN | (writing ? EPOLLOUT : 0), EPOLL_CTL_MOD);
    c->writing = writing;
}

static void ring_at(uint64_t due) {
    struct itimerspec when = {.it_value = {(time_t)(due / 1000000000u), (long)(due % 1000000000u)}};
    if (timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, NULL)) die("timerfd_settime");
}

/* The head of an answer stands before its body, so the body is made first. */
static void respond(int fd, int status, const Buffer *body) {
    Connection *c = &connections[fd];
    char head[128];
    int length = snprintf(head, sizeof head,
        "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
        status, status == 201 ? "Created" : status == 200 ? "OK" : "Bad Request", body->length);
    if (latency == 0 || status == 400) {
        append(&c->out, head, (size_t)length);
        append(&c->out, body->bytes, body->length);
        return;
    }
    if (queue_length == queue_capacity) { /* a ring: grown by unrolling it */
        size_t capacity = queue_capacity ? queue_capacity * 2 : 1024;
        Due *grown = calloc(capacity, sizeof *grown);
        if (!grown) die("calloc");
        for (size_t n = 0; n < queue_length; n++) grown[n] = queue[(queue_head + n) % queue_capacity];
        free(queue);
        queue = grown, queue_head = 0, queue_capacity = capacity;
    }
    Due *due = &queue[(queue_head + queue_length++) % queue_capacity];
    due->due = now() + latency, due->fd = fd, due->generation = c->generation;
    due->answer.length = 0;
    append(&due->answer, head, (size_t)length);
    append(&due->answer, body->bytes, body->length);
    c->waiting++;
    if (++stats.in_flight > stats.in_flight_max) stats.in_flight_max = stats.in_flight;
    if (queue_length == 1) ring_at(due->due);
}

static void answer_due(void) {
    uint64_t expirations, time = now();
    if (read(timer, &expirations, sizeof expirations) < 0 && errno != EAGAIN) die("read");
    while (queue_length && queue[queue_head].due <= time) {
        Due *due = &queue[queue_head];
        Connection *c = &connections[due->fd];
        if (c->open && c->generation == due->generation) {
            c->waiting--, stats.in_flight--;
            append(&c->out, due->answer.bytes, due->answer.length);
            flush(due->fd);
        }
        queue_head = (queue_head + 1) % queue_capacity, queue_length--;
    }
    if (queue_length) ring_at(queue[queue_head].due);
}

static long content_length(const char *head, const char *end) {
    for (const char *line = head; line < end;) {
        const char *stop = memchr(line, '\n', (size_t)(end - line));
        if (!stop) break;
        if (stop - line > 15 && strncasecmp(line, "content-length:", 15) == 0) return strtol(line + 15, NULL, 10);
        if (stop - line > 18 && strncasecmp(line, "transfer-encoding:", 18) == 0) return -1; /* not understood here */
        line = stop + 1;
    }
    return 0;
}

/* Answers every whole request in the buffer. */
static void take_requests(int fd) {
    static Buffer body;
    Connection *c = &connections[fd];
    size_t at = 0;
    while (c->in.length > at) {
        const char *start = c->in.bytes + at;
        const char *end = memmem(start, c->in.length - at, "\r\n\r\n", 4);
        if (!end) break;
        size_t head = (size_t)(end - start) + 4;
        long length = content_length(start, end + 2);
        const char *path = memchr(start, ' ', head);
        const char *path_end = path ? memchr(path + 1, ' ', head - (size_t)(path + 1 - start)) : NULL;
        body.length = 0;
        if (length < 0 || !path_end) {
            stats.malformed++;
            at = c->in.length;
            respond(fd, 400, &body);
            break;
        }
        size_t whole = head + (size_t)length;
        if (c->in.length - at < whole) {
            reserve(&c->in, whole);
            break;
        }
        at += whole;
        if (has(path, (size_t)(path_end - path), " /stats")) {
            uint64_t kept = latency;
            write_stats(&body);
            latency = 0;
            respond(fd, 200, &body);
            latency = kept;
            continue;
        }
        stats.last = now();
        if (!stats.requests++) stats.first = stats.last;
        stats.body_bytes += (uint64_t)length;
        if (capture) {
            uint32_t size = (uint32_t)whole;
            fwrite(&size, sizeof size, 1, capture);
            fwrite(start, 1, whole, capture);
        }
        int status = answer_to(path, (size_t)(path_end - path), start + head, (size_t)length, &body);
        respond(fd, status, &body);
    }
    drop(&c->in, at);
    if (c->out.length) flush(fd);
}

static void receive(int fd) {
    Connection *c = &connections[fd];
    for (;;) {
        reserve(&c->in, 65536);
        size_t room = c->in.capacity - c->in.length;
        ssize_t n = recv(fd, c->in.bytes + c->in.length, room, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) return;
        if (n <= 0) {
            hang_up(fd);
            return;
        }
        c->in.length += (size_t)n;
        take_requests(fd);
        if (!c->open || (size_t)n < room) return;
    }
}

static void welcome(int listener) {
    int fd, yes = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        if (fd >= MAX_FD) {
            close(fd);
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        connections[fd].open = 1;
        stats.accepted++;
        if (++stats.connections > stats.connections_max) stats.connections_max = stats.connections;
        watch(fd, (uint64_t)fd, EPOLLIN, EPOLL_CTL_ADD);
    }
}

static void leave(int number) {
    (void)number;
    if (capture) fclose(capture);
    _exit(0);
}

int main(int count, char **words) {
    int option, port = 0, yes = 1;
    while ((option = getopt(count, words, "l:p:c:")) != -1) {
        if (option == 'l') latency = (uint64_t)(atof(optarg) * 1e6);
        else if (option == 'p') port = atoi(optarg);
        else if (option == 'c') capture = fopen(optarg, "wb");
        else return 2;
        if (option == 'c' && !capture) die(optarg);
    }
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    socklen_t size = sizeof address;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, 4096)) die("listen");
    if (getsockname(listener, (struct sockaddr *)&address, &size)) die("getsockname");
    signal(SIGTERM, leave);
    signal(SIGPIPE, SIG_IGN);
    poller = epoll_create1(EPOLL_CLOEXEC);
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    watch(listener, LISTENER, EPOLLIN, EPOLL_CTL_ADD);
    watch(timer, TIMER, EPOLLIN, EPOLL_CTL_ADD);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        struct epoll_event events[256];
        int ready = epoll_wait(poller, events, 256, -1);
        for (int n = 0; n < ready; n++) {
            uint64_t mark = events[n].data.u64;
            if (mark == LISTENER) welcome(listener);
            else if (mark == TIMER) answer_due();
            else {
                if (events[n].events & EPOLLOUT) flush((int)mark);
                if (connections[mark].open && events[n].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) receive((int)mark);
            }
        }
    }
}
