// A paced OpenAI-compatible server that knows the truth: every event says when it was sent. Linux, one thread.
//
//   cc -O2 -o mock_sse mock_sse.c
//   ./mock_sse TOKENS FIRST_US GAP_US        prints its port; ends when its standard input does
//                                          and prints how many tokens it sent, and how late: mean and most, in us
//
// Each POST is answered with a chunked stream: TOKENS events, the first FIRST_US after the request was read, the
// others GAP_US apart, then a usage event and [DONE]. "max_tokens" makes it shorter; without "stream":true the same
// answer comes as one JSON document when its last token is due. A GET is answered at once with the list of models.
// In an event "created" is CLOCK_MONOTONIC in nanoseconds just
// before send(), and the id ends in the time at which the request had been read. Python's perf_counter_ns() reads the
// same clock, so a client's error is a subtraction. Headers leave at once, before the first token.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
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

enum { MAX_CONNECTIONS = 4096, REQUEST_BYTES = 65536, EVENTS_PER_WAIT = 256 };

typedef struct {
    int fd;
    int sent;           // tokens of the answer under way, -1 when idle
    int wanted;         // tokens of the whole answer
    int streamed;
    int64_t arrived_ns; // when its request had been read
    int64_t due_ns;     // when its next token is to leave
    size_t filled;
    char request[REQUEST_BYTES + 1];
} Connection;

static Connection *connections[MAX_CONNECTIONS]; // by file descriptor
static int highest_fd, tokens;
static int64_t first_ns, gap_ns;
static int64_t sent_count, late_sum_ns, late_most_ns; // of everything sent: how much later than it was due
static int epoll_fd, timer_fd, listen_fd;

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void watch(int fd) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event)) fail("epoll_ctl");
}

static void hang_up(Connection *c) {
    connections[c->fd] = NULL;
    close(c->fd);
    free(c);
}

// A client so slow that a whole answer (30 kB) does not fit into the socket's buffer is hung up on.
static int put(Connection *c, const char *data, size_t length) {
    return send(c->fd, data, length, MSG_NOSIGNAL) == (ssize_t)length;
}

static int put_chunk(Connection *c, const char *body, int length) {
    char chunk[1024];
    int n = sprintf(chunk, "%x\r\n%.*s\r\n", length, length, body);
    return put(c, chunk, n);
}

static int put_token(Connection *c) {
    char body[512];
    int n = sprintf(body,
        "data: {\"id\":\"chatcmpl-%lld\",\"object\":\"chat.completion.chunk\",\"created\":%lld,\"model\":\"mock\","
        "\"choices\":[{\"index\":0,\"delta\":{\"content\":\" token\"},\"logprobs\":null,\"finish_reason\":%s}]}\n\n",
        (long long)c->arrived_ns, (long long)now_ns(), c->sent == c->wanted - 1 ? "\"length\"" : "null");
    return put_chunk(c, body, n);
}

static int put_end(Connection *c) {
    char body[512];
    int n = sprintf(body,
        "data: {\"id\":\"chatcmpl-%lld\",\"object\":\"chat.completion.chunk\",\"created\":0,\"model\":\"mock\","
        "\"choices\":[],\"usage\":{\"prompt_tokens\":16,\"completion_tokens\":%d,\"total_tokens\":%d}}\n\n",
        (long long)c->arrived_ns, c->wanted, c->wanted + 16);
    const char done[] = "data: [DONE]\n\n";
    return put_chunk(c, body, n) && put_chunk(c, done, sizeof done - 1) && put(c, "0\r\n\r\n", 5);
}

static int put_json(Connection *c, const char *body) {
    char head[256];
    size_t size = strlen(body);
    int n = sprintf(head, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n", size);
    return put(c, head, n) && put(c, body, size);
}

static int put_document(Connection *c) {
    const char token[] = " token";
    char *text = calloc(c->wanted + 1, sizeof token), *body = malloc(c->wanted * sizeof token + 1024);
    for (int i = 0; i < c->wanted; i++) strcat(text, token);
    sprintf(body,
        "{\"id\":\"chatcmpl-%lld\",\"object\":\"chat.completion\",\"created\":0,\"model\":\"mock\","
        "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"%s\"},"
        "\"logprobs\":null,\"finish_reason\":\"length\"}],"
        "\"usage\":{\"prompt_tokens\":16,\"completion_tokens\":%d,\"total_tokens\":%d}}",
        (long long)c->arrived_ns, text, c->wanted, c->wanted + 16);
    int alive = put_json(c, body);
    free(text);
    free(body);
    return alive;
}

static int start_answer(Connection *c) {
    const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
                        "Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n";
    c->arrived_ns = now_ns();
    if (!strncmp(c->request, "GET ", 4)) {
        return put_json(c, "{\"object\":\"list\",\"data\":[{\"id\":\"mock\",\"object\":\"model\",\"created\":0}]}");
    }
    char *most = strstr(c->request, "\"max_tokens\":");
    int wanted = most ? atoi(most + 13) : tokens;
    c->wanted = wanted > 0 && wanted < tokens ? wanted : tokens;
    c->streamed = strstr(c->request, "\"stream\":true") || strstr(c->request, "\"stream\": true");
    c->sent = c->streamed ? 0 : c->wanted - 1;
    c->due_ns = c->arrived_ns + first_ns + c->sent * gap_ns;
    return !c->streamed || put(c, head, sizeof head - 1);
}

// Starts the answer when a whole request is there. Requests are not pipelined.
static int read_request(Connection *c) {
    ssize_t got = recv(c->fd, c->request + c->filled, REQUEST_BYTES - c->filled, 0);
    if (got < 0 && errno == EAGAIN) return 1;
    if (got <= 0) return 0;
    c->filled += got;
    c->request[c->filled] = 0;
    char *end = strstr(c->request, "\r\n\r\n");
    if (!end) return c->filled < REQUEST_BYTES;
    char *length = strcasestr(c->request, "\r\ncontent-length:");
    size_t body = length && length < end ? strtoul(length + 17, NULL, 10) : 0;
    if (c->filled < (size_t)(end + 4 - c->request) + body) return c->filled < REQUEST_BYTES;
    c->filled = 0;
    return start_answer(c);
}

static void accept_all(void) {
    int fd, on = 1;
    while ((fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        if (fd >= MAX_CONNECTIONS) {
            close(fd);
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        Connection *c = calloc(1, sizeof *c);
        c->fd = fd;
        c->sent = -1;
        connections[fd] = c;
        if (fd > highest_fd) highest_fd = fd;
        watch(fd);
    }
}

// Sends every token that is due and returns when the next one will be, 0 for none.
static int64_t send_due(void) {
    int64_t next = 0;
    for (int fd = 0; fd <= highest_fd; fd++) {
        Connection *c = connections[fd];
        if (!c || c->sent < 0) continue;
        int64_t late_ns = now_ns() - c->due_ns;
        if (late_ns >= 0) {
            sent_count++;
            late_sum_ns += late_ns;
            if (late_ns > late_most_ns) late_most_ns = late_ns;
            int alive = c->streamed ? put_token(c) : put_document(c);
            c->due_ns += gap_ns;
            if (++c->sent == c->wanted) {
                alive = alive && (!c->streamed || put_end(c));
                c->sent = -1;
            }
            if (!alive) {
                hang_up(c);
                continue;
            }
        }
        if (c->sent >= 0 && (!next || c->due_ns < next)) next = c->due_ns;
    }
    return next;
}

static void start_listening(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (bind(listen_fd, (void *)&address, size) || listen(listen_fd, 1024)) fail("listen");
    getsockname(listen_fd, (void *)&address, &size);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
}

int main(int count, char **arguments) {
    if (count != 4) {
        fprintf(stderr, "usage: mock_sse TOKENS FIRST_US GAP_US\n");
        return 2;
    }
    tokens = atoi(arguments[1]);
    first_ns = atoll(arguments[2]) * 1000;
    gap_ns = atoll(arguments[3]) * 1000;
    epoll_fd = epoll_create1(0);
    timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    start_listening();
    watch(listen_fd);
    watch(timer_fd);
    watch(STDIN_FILENO);
    for (;;) {
        int64_t next = send_due();
        struct itimerspec alarm = {.it_value = {next / 1000000000LL, next % 1000000000LL}};
        timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &alarm, NULL);
        struct epoll_event events[EVENTS_PER_WAIT];
        int ready = epoll_wait(epoll_fd, events, EVENTS_PER_WAIT, -1);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            uint64_t expirations;
            if (fd == STDIN_FILENO) {
                double mean_us = sent_count ? late_sum_ns / 1e3 / sent_count : 0;
                printf("%lld %.0f %.0f\n", (long long)sent_count, mean_us, late_most_ns / 1e3);
                return 0;
            }
            if (fd == timer_fd) {
                if (read(timer_fd, &expirations, sizeof expirations) < 0 && errno != EAGAIN) fail("timerfd");
            } else if (fd == listen_fd) {
                accept_all();
            } else if (connections[fd] && !read_request(connections[fd])) {
                hang_up(connections[fd]);
            }
        }
    }
}
