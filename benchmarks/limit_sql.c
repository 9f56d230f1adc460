/* The same work in C, with nothing of a framework: rows of SQLite, checked, written as the vendor's JSON, sent; answers
 * checked.
 *
 *   limit_sql DATABASE QUERY VENDOR PORT IN_FLIGHT
 *
 * SQLite's functions are declared here, so that its library is enough and its headers are not needed.
 */
#include "exchange.h"

typedef struct sqlite3 sqlite3;
typedef struct sqlite3_stmt sqlite3_stmt;
int sqlite3_open_v2(const char *, sqlite3 **, int, const char *);
int sqlite3_prepare_v2(sqlite3 *, const char *, int, sqlite3_stmt **, const char **);
int sqlite3_step(sqlite3_stmt *);
const unsigned char *sqlite3_column_text(sqlite3_stmt *, int);
double sqlite3_column_double(sqlite3_stmt *, int);
int64_t sqlite3_column_int64(sqlite3_stmt *, int);
enum { READ_ONLY = 1, ROW = 100, HEAD = 512 };

typedef struct {
    const char *name;
    int batch;
    const char *path, *credentials;
} Vendor;

static const Vendor vendors[] = {
    {"embeddables", 1, "/projects/pr_bench/events", "X-Api-Key: rk_bench"},
    {"vibetrace", 1, "/event", "Authorization: key_bench"},
    {"webengage", 25, "/v1/accounts/bench/bulk-events", "Authorization: Bearer key_bench"},
    {"bloomreach", 50, "/track/v2/projects/bench/batch", "Authorization: Basic aWQ6c2VjcmV0"},
};
static const Vendor *vendor;
static sqlite3_stmt *rows;
static int port, more = 1;

/* ---- JSON ------------------------------------------------------------------------------------------------------ */

static char *text(char *to, const char *from) {
    size_t length = strlen(from);
    memcpy(to, from, length);
    return to + length;
}

/* `depth` 1 inside a JSON text that is itself a text. */
static char *quote(char *to, int depth) {
    if (depth) *to++ = '\\';
    *to++ = '"';
    return to;
}

static char *string(char *to, const char *from, int depth) {
    to = quote(to, depth);
    for (; *from; from++) {
        unsigned char byte = (unsigned char)*from;
        if (byte < 0x20 || byte == '"' || byte == '\\') to += sprintf(to, depth ? "\\\\u%04x" : "\\u%04x", byte);
        else *to++ = *from;
    }
    return quote(to, depth);
}

static char *integer(char *to, int64_t value) {
    char digits[24], *at = digits + sizeof digits;
    uint64_t left = value < 0 ? -(uint64_t)value : (uint64_t)value;
    do *--at = (char)('0' + left % 10);
    while (left /= 10);
    if (value < 0) *--at = '-';
    size_t length = (size_t)(digits + sizeof digits - at);
    memcpy(to, at, length);
    return to + length;
}

/* Amounts with two decimals the short way, all others exactly. */
static char *real(char *to, double value) {
    int64_t cents = (int64_t)(value * 100 + 0.5);
    if (value < 0 || value > 1e12 || (double)cents / 100 != value) return to + sprintf(to, "%.17g", value);
    to = integer(to, cents / 100);
    *to++ = '.';
    *to++ = (char)('0' + cents / 10 % 10);
    if (cents % 10) *to++ = (char)('0' + cents % 10);
    return to;
}

/* The members of an object, without its braces. */
static char *properties(char *to, int depth) {
    static const char *names[] = {"page", "plan", "amount", "quantity", "first_order"};
    for (int n = 0; n < 5; n++) {
        if (n) *to++ = ',';
        to = string(to, names[n], depth);
        *to++ = ':';
        if (n < 2) to = string(to, (const char *)sqlite3_column_text(rows, 4 + n), depth);
        else if (n == 2) to = real(to, sqlite3_column_double(rows, 6));
        else to = integer(to, sqlite3_column_int64(rows, 4 + n));
    }
    return to;
}

/* ---- events ---------------------------------------------------------------------------------------------------- */

/* `2026-03-01T09:30:00.123Z` as milliseconds since 1970; -1 if it is none. */
static int64_t parsed(const char *time) {
    static const char form[] = "####-##-##T##:##:##.###Z";
    for (size_t n = 0; n < sizeof form; n++)
        if (form[n] == '#' ? time[n] < '0' || time[n] > '9' : time[n] != form[n]) return -1;
#define TWO(at) ((time[at] - '0') * 10 + time[at + 1] - '0')
    int64_t year = TWO(0) * 100 + TWO(2), month = TWO(5), day = TWO(8);
    year -= month <= 2;
    int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    int64_t days = year * 365 + year / 4 - year / 100 + year / 400 + of_year - 719468;
    int64_t second = ((days * 24 + TWO(11)) * 60 + TWO(14)) * 60 + TWO(17);
    return second * 1000 + (time[20] - '0') * 100 + TWO(21);
}

/* The row that the query stands at. */
static char *event(char *to, int position) {
    const char *email = (const char *)sqlite3_column_text(rows, 1), *name = (const char *)sqlite3_column_text(rows, 2);
    const char *time = (const char *)sqlite3_column_text(rows, 3);
    int64_t moment = parsed(time);
    if (!email || !*email || !name || !*name || moment < 0) {
        fprintf(stderr, "a row that is no event\n");
        exit(1);
    }
    switch (vendor->name[0]) {
    case 'e':
        to = text(to, "{\"embeddable_id\":\"flow_bench\",\"timestamp\":");
        to = text(string(to, time, 0), ",\"custom_event_name\":");
        to = text(string(to, name, 0), ",\"custom_event_props\":\"{");
        to = text(properties(to, 1), "}\",\"identifiers\":[{\"key\":\"email\",\"value\":\"");
        return text(string(to, email, 1), "\"}]}");
    case 'v':
        to = string(text(to, "{\"user\":{\"email\":"), email, 0);
        to = string(text(to, "},\"event\":{\"generic\":{\"generic\":{\"event_name\":"), name, 0);
        *to++ = ',';
        return text(properties(to, 0), "}}}}");
    case 'w':
        to = string(text(to, "{\"userId\":"), email, 0);
        to = string(text(to, ",\"eventName\":"), name, 0);
        to = text(to, ",\"eventTime\":\"");
        memcpy(to, time, 19);
        to = properties(text(to + 19, "+0000\",\"eventData\":{"), 0);
        return text(to, "}}");
    default:
        to = integer(text(to, "{\"name\":\"customers/events\",\"command_id\":\""), position);
        to = string(text(to, "\",\"data\":{\"customer_ids\":{\"registered\":"), email, 0);
        to = string(text(to, "},\"event_type\":"), name, 0);
        to = properties(text(to, ",\"properties\":{"), 0);
        to = integer(text(to, "},\"timestamp\":"), moment / 1000);
        *to++ = '.';
        for (int64_t part = 100; part; part /= 10) *to++ = (char)('0' + moment / part % 10);
        return text(to, "}}");
    }
}

static int next_request(Connection *c) {
    if (!c->own && !(c->own = malloc(MAX_REQUEST))) die("malloc");
    char *body = c->own + HEAD, *to = body;
    if (vendor->batch > 1) to = text(to, vendor->name[0] == 'w' ? "{\"events\":[" : "{\"commands\":[");
    for (c->events = 0; more && c->events < vendor->batch; c->events++) {
        if (!(more = sqlite3_step(rows) == ROW)) break;
        if (c->events) *to++ = ',';
        to = event(to, c->events);
    }
    if (!c->events) return 0;
    if (vendor->batch > 1) to = text(to, "]}");
    char head[HEAD];
    int length = snprintf(head, sizeof head,
        "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\n%s\r\nContent-Length: %zu\r\n\r\n",
        vendor->path, port, vendor->credentials, (size_t)(to - body));
    memcpy(body - length, head, (size_t)length);
    c->unsent = body - length;
    c->left = (size_t)(to - c->unsent);
    return 1;
}

/* Whether the vendor says that all events were taken. */
static int answered(const Connection *c, const char *body, const char *end) {
    const char *word = "\"success\":true";
    int expected = c->events + 1, found = 0;
    switch (vendor->name[0]) {
    case 'e': word = "\"entry_id\"", expected = 1; break;
    case 'v': word = "\"results\"", expected = 1; break;
    case 'w': word = "\"queued\"", expected = 1; break;
    }
    while ((body = memmem(body, (size_t)(end - body), word, strlen(word)))) body += strlen(word), found++;
    return found == expected;
}

int main(int count, char **words) {
    if (count != 6) return 2;
    sqlite3 *database;
    for (size_t n = 0; n < sizeof vendors / sizeof *vendors; n++)
        if (!strcmp(vendors[n].name, words[3])) vendor = &vendors[n];
    if (!vendor || sqlite3_open_v2(words[1], &database, READ_ONLY, NULL)) return 2;
    if (sqlite3_prepare_v2(database, words[2], -1, &rows, NULL)) return 2;
    port = atoi(words[4]);
    exchange(port, atoi(words[5]));
    return 0;
}
