"""A gRPC server, in cleartext: `grpc_server.py PORT`.

In:  calls of test.Bytes whose request is a number n in decimal.
     Block     allocates one block of n bytes and gives it back
     Fail      the same, and fails with NOT_FOUND
     Stream    three answers, with one block of n bytes before each
Out: the block's length. Deliberately not here: protobuf, which needs a compiler.
"""

import sys
from concurrent import futures

import grpc


def block(request):
    """Allocates one block of that size and gives it back."""
    return b"%d" % len(bytearray(int(request)))


def answer(request, _context):
    return block(request)


def fail(request, context):
    block(request)
    context.abort(grpc.StatusCode.NOT_FOUND, "as asked")


def stream(request, _context):
    for _ in range(3):
        yield block(request)


def main():
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    handlers = {
        "Block": grpc.unary_unary_rpc_method_handler(answer),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
        "Stream": grpc.unary_stream_rpc_method_handler(stream),
    }
    service = grpc.method_handlers_generic_handler("test.Bytes", handlers)
    server.add_generic_rpc_handlers((service,))
    server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
