// A program that passes for a Node whose asynchronous resources are kept otherwise
// than in any Node that is known.
//
// In:  PORT (served on 127.0.0.1); compiled with OTHER_CODE, the function that
//      begins callbacks looks for its arrays elsewhere, else it is the arrays that
//      have another size.
// Out: every request is answered in one callback that allocates 1000 bytes.
// It has the names of Node's functions and nothing else of Node. Deliberately not
// here: anything that knows memtrace.

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#ifdef OTHER_CODE
#define STACK 5
#define FIELDS 11
#define IDS 17
#else
#define STACK 5
#define FIELDS 12
#define IDS 19
#endif

#define FUNCTION __attribute__((noinline, visibility("default")))

// Words of an `AsyncHooks`.
static uint64_t hooks[64];
static volatile uint64_t calls;

FUNCTION void _ZN4node10AsyncHooks18push_async_contextEddN2v85LocalINS1_6ObjectEEE(
    uint64_t *words)
{
    uint64_t *volatile *of = (uint64_t *volatile *)words;
    calls += of[STACK][0] + of[FIELDS][0] + of[IDS][0];
}

FUNCTION void _ZN4node21InternalCallbackScope5CloseEv(void) { calls++; }
FUNCTION void _ZN4node11Environment9RunTimersEP10uv_timer_s(void) { calls += 2; }
FUNCTION void _ZN4node11Environment14CheckImmediateEP10uv_check_s(void) { calls += 3; }
FUNCTION void _ZN2v88internal14MicrotaskQueue13RunMicrotasksEPNS0_7IsolateE(void)
{
    calls += 4;
}

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static void serve(int connection)
{
    static const char answer[] =
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
    char request[4096];
    // Who only connects asks for nothing.
    if (recv(connection, request, sizeof request, 0) <= 0)
        return;
    _ZN4node10AsyncHooks18push_async_contextEddN2v85LocalINS1_6ObjectEEE(hooks);
    char *block = malloc(1000);
    if (block == NULL)
        fail("malloc");
    memset(block, 1, 1000);
    if (send(connection, answer, strlen(answer), MSG_NOSIGNAL) < 0)
        perror("send");
    free(block);
    _ZN4node21InternalCallbackScope5CloseEv();
    _ZN4node11Environment9RunTimersEP10uv_timer_s();
    _ZN4node11Environment14CheckImmediateEP10uv_check_s();
    _ZN2v88internal14MicrotaskQueue13RunMicrotasksEPNS0_7IsolateE();
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    static uint64_t array[64];
    for (int word = 0; word < 64; word++)
        hooks[word] = (uint64_t)array;
#ifndef OTHER_CODE
    // Counts: of the stack, of the fields (Node has 8 to 10), of the numbers.
    hooks[3] = 32;
    hooks[10] = 20;
    hooks[17] = 4;
#endif
    int one = 1;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons((uint16_t)atoi(argv[1])),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0 ||
        listen(listener, 64) != 0)
        fail("listen");
    for (;;) {
        int connection = accept(listener, NULL, NULL);
        if (connection < 0)
            fail("accept");
        serve(connection);
        close(connection);
    }
}
