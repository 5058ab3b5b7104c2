/* The echo server on libuv: one shared read buffer, uv_try_write at once, uv_write for what is left,
 * and nothing is read while something is left. Accepted sockets inherit TCP_NODELAY. */
#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <uv.h>

#define BACKLOG 4096

struct rest {
    uv_write_t request;
    char bytes[];
};

static char shared[64 * 1024];

static void must(int status, const char *what) {
    if (status < 0) {
        fprintf(stderr, "%s: %s\n", what, uv_strerror(status));
        exit(1);
    }
}

static void release(uv_handle_t *connection) {
    free(connection);
}

static void end(uv_stream_t *connection) {
    if (!uv_is_closing((uv_handle_t *)connection))
        uv_close((uv_handle_t *)connection, release);
}

static void lend(uv_handle_t *connection, size_t wanted, uv_buf_t *buffer) {
    (void)connection, (void)wanted;
    *buffer = uv_buf_init(shared, sizeof shared);
}

static void on_input(uv_stream_t *connection, ssize_t length, const uv_buf_t *buffer);

static void on_sent(uv_write_t *request, int status) {
    uv_stream_t *connection = request->handle;
    free(request); /* it is the first field */
    if (status < 0)
        end(connection);
    else
        uv_read_start(connection, lend, on_input);
}

static void on_input(uv_stream_t *connection, ssize_t length, const uv_buf_t *buffer) {
    if (length == 0)
        return;
    if (length < 0) {
        end(connection);
        return;
    }
    uv_buf_t data = uv_buf_init(buffer->base, (unsigned)length);
    int sent = uv_try_write(connection, &data, 1);
    if (sent == length)
        return;
    if (sent == UV_EAGAIN)
        sent = 0;
    if (sent < 0) {
        end(connection);
        return;
    }
    size_t left = (size_t)(length - sent);
    struct rest *rest = malloc(sizeof *rest + left);
    memcpy(rest->bytes, buffer->base + sent, left);
    data = uv_buf_init(rest->bytes, (unsigned)left);
    uv_read_stop(connection);
    if (uv_write(&rest->request, connection, &data, 1, on_sent) < 0) {
        free(rest);
        end(connection);
    }
}

static void on_connection(uv_stream_t *listener, int status) {
    if (status < 0)
        return;
    uv_tcp_t *connection = malloc(sizeof *connection);
    must(uv_tcp_init(listener->loop, connection), "uv_tcp_init");
    if (uv_accept(listener, (uv_stream_t *)connection) == 0)
        uv_read_start((uv_stream_t *)connection, lend, on_input);
    else
        end((uv_stream_t *)connection);
}

int main(void) {
    /* A server that is forgotten would spoil the next measurement; strace is a sibling. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
    signal(SIGPIPE, SIG_IGN);
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }

    uv_loop_t *loop = uv_default_loop();
    uv_tcp_t listener;
    struct sockaddr_in address;
    int size = sizeof address;
    must(uv_ip4_addr("127.0.0.1", 0, &address), "uv_ip4_addr");
    must(uv_tcp_init(loop, &listener), "uv_tcp_init");
    must(uv_tcp_bind(&listener, (const struct sockaddr *)&address, 0), "uv_tcp_bind");
    must(uv_tcp_nodelay(&listener, 1), "uv_tcp_nodelay");
    must(uv_listen((uv_stream_t *)&listener, BACKLOG, on_connection), "uv_listen");
    must(uv_tcp_getsockname(&listener, (struct sockaddr *)&address, &size), "uv_tcp_getsockname");
    printf("listening on 127.0.0.1:%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return uv_run(loop, UV_RUN_DEFAULT);
}
