// An HTTPS server on OpenSSL that uses each form of its calls in turn.
//
// In:  PORT KEY CERTIFICATE.
// Out: answers on 127.0.0.1, a thread for each keep-alive connection. Requests
//      are read by SSL_read and SSL_read_ex in turn, after SSL_peek has looked
//      at their first bytes; responses are written by SSL_write and SSL_write_ex
//      in turn, in two pieces.
//   /alloc/N  malloc(N), free at once      /count  requests but for itself
// Deliberately not here: robustness beyond a test's.

#include <netinet/in.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define IN_BYTES 8192

static SSL_CTX *context;
static atomic_ulong requests;

static int receive(SSL *ssl, char *buffer, size_t room, unsigned turn) {
  char first[4];
  // Looking is not receiving.
  if (SSL_peek(ssl, first, sizeof first) <= 0)
    return 0;
  if (turn % 2 == 0)
    return SSL_read(ssl, buffer, (int)room);
  size_t got = 0;
  return SSL_read_ex(ssl, buffer, room, &got) == 1 ? (int)got : 0;
}

static int send_all(SSL *ssl, const char *buffer, size_t len, unsigned turn) {
  if (turn % 2 == 0)
    return SSL_write(ssl, buffer, (int)len) == (int)len;
  size_t sent = 0;
  return SSL_write_ex(ssl, buffer, len, &sent) == 1 && sent == len;
}

static int answer(SSL *ssl, const char *request, unsigned turn) {
  char body[64], head[128];
  int size;
  if (strncmp(request, "GET /alloc/", 11) == 0) {
    volatile char *block = malloc(strtoul(request + 11, NULL, 10));
    if (block == NULL)
      return 0;
    block[0] = 1;
    free((void *)block);
    atomic_fetch_add(&requests, 1);
    size = snprintf(body, sizeof body, "done\n");
  } else {
    size = snprintf(body, sizeof body, "%lu\n", atomic_load(&requests));
  }
  int head_size = snprintf(head, sizeof head,
                           "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", size);
  return send_all(ssl, head, (size_t)head_size, turn) &&
         send_all(ssl, body, (size_t)size, turn + 1);
}

static void *serve(void *argument) {
  int fd = (int)(long)argument;
  SSL *ssl = SSL_new(context);
  if (ssl != NULL && SSL_set_fd(ssl, fd) == 1 && SSL_accept(ssl) == 1) {
    char in[IN_BYTES];
    size_t have = 0;
    for (unsigned turn = 0;; turn++) {
      int got = receive(ssl, in + have, sizeof in - 1 - have, turn);
      if (got <= 0)
        break;
      have += (size_t)got;
      in[have] = '\0';
      if (strstr(in, "\r\n\r\n") == NULL)
        continue;
      have = 0;
      if (!answer(ssl, in, turn))
        break;
    }
    SSL_shutdown(ssl);
  }
  SSL_free(ssl);
  ERR_clear_error();
  close(fd);
  return NULL;
}

int main(int count, char **arguments) {
  if (count != 4) {
    fprintf(stderr, "usage: tls_server PORT KEY CERTIFICATE\n");
    return 2;
  }
  signal(SIGPIPE, SIG_IGN);
  context = SSL_CTX_new(TLS_server_method());
  if (context == NULL ||
      SSL_CTX_use_certificate_file(context, arguments[3], SSL_FILETYPE_PEM) != 1 ||
      SSL_CTX_use_PrivateKey_file(context, arguments[2], SSL_FILETYPE_PEM) != 1) {
    ERR_print_errors_fp(stderr);
    return 1;
  }
  int listener = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  struct sockaddr_in address = {.sin_family = AF_INET,
                                .sin_port = htons((unsigned short)atoi(arguments[1])),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0 ||
      listen(listener, 1024) != 0) {
    perror("listen");
    return 1;
  }
  for (;;) {
    int fd = accept(listener, NULL, NULL);
    pthread_t thread;
    if (fd < 0)
      continue;
    if (pthread_create(&thread, NULL, serve, (void *)(long)fd) != 0)
      close(fd);
    else
      pthread_detach(thread);
  }
}
