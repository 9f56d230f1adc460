/* What no client can beat: prepared requests, sent as they are; of an answer the status is looked at.
 *
 *   limit FILE PORT IN_FLIGHT
 *
 * FILE holds requests as `stub -c` wrote them.
 */
#include "exchange.h"

#include <sys/mman.h>
#include <sys/stat.h>

static const char *next, *end;

static int next_request(Connection *c) {
    uint32_t length;
    if (next >= end) return 0;
    memcpy(&length, next, sizeof length);
    c->unsent = next + sizeof length;
    c->left = length;
    next += sizeof length + length;
    return 1;
}

static int answered(const Connection *c, const char *body, const char *after) {
    (void)c, (void)body, (void)after;
    return 1;
}

int main(int count, char **words) {
    if (count != 4) return 2;
    int file = open(words[1], O_RDONLY);
    struct stat info;
    if (file < 0 || fstat(file, &info)) die(words[1]);
    next = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, file, 0);
    if (next == MAP_FAILED) die("mmap");
    end = next + info.st_size;
    exchange(atoi(words[2]), atoi(words[3]));
    return 0;
}
