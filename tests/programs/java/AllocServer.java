// A Java server whose endpoints allocate known amounts, on the JDK's own HTTP
// server: `java AllocServer PORT THREADS`, or `virtual` for THREADS.
//
//   /alloc/N   an array of N bytes
//   /two/N     two arrays of N bytes, with a sleep of 5 ms between them
//   /native/N  N bytes of memory that is not the heap's
//   /plain     no more than an answer needs
//   /counts    JSON: of each endpoint the requests, and the bytes that the
//              runtime itself says their threads have allocated in the handler
//
// Everything is answered with a few bytes; HTTP's own part is the JDK's.

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.net.InetSocketAddress;
import java.nio.ByteBuffer;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicLong;

public class AllocServer {
    private static final com.sun.management.ThreadMXBean THREADS =
            (com.sun.management.ThreadMXBean) ManagementFactory.getThreadMXBean();
    private static final Map<String, AtomicLong[]> COUNTS = new ConcurrentHashMap<>();
    // Where the compiler cannot see that nobody looks at them.
    private static volatile Object last;

    public static void main(String[] args) throws Exception {
        int port = Integer.parseInt(args[0]);
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", port), 1024);
        server.setExecutor(executor(args[1]));
        server.createContext("/", AllocServer::handle);
        server.start();
    }

    private static ExecutorService executor(String threads) throws Exception {
        if (threads.equals("virtual")) {
            // By its name: this is compiled for Java 17 too.
            return (ExecutorService)
                    Executors.class.getMethod("newVirtualThreadPerTaskExecutor").invoke(null);
        }
        return Executors.newFixedThreadPool(Integer.parseInt(threads));
    }

    private static void handle(HttpExchange exchange) throws IOException {
        long before = THREADS.getCurrentThreadAllocatedBytes();
        String path = exchange.getRequestURI().getPath();
        if (path.equals("/counts")) {
            answer(exchange, counts().getBytes());
            return;
        }
        String[] parts = path.split("/");
        int bytes = parts.length > 2 ? Integer.parseInt(parts[2]) : 0;
        switch (parts[1]) {
            case "alloc":
                last = new byte[bytes];
                break;
            case "two":
                last = new byte[bytes];
                sleep();
                last = new byte[bytes];
                break;
            case "native":
                last = ByteBuffer.allocateDirect(bytes);
                break;
            default:
                break;
        }
        AtomicLong[] counts = COUNTS.computeIfAbsent(
                path, key -> new AtomicLong[] {new AtomicLong(), new AtomicLong()});
        counts[0].incrementAndGet();
        counts[1].addAndGet(THREADS.getCurrentThreadAllocatedBytes() - before);
        answer(exchange, "done\n".getBytes());
    }

    private static void sleep() {
        try {
            Thread.sleep(5);
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
        }
    }

    private static void answer(HttpExchange exchange, byte[] body) throws IOException {
        exchange.sendResponseHeaders(200, body.length);
        exchange.getResponseBody().write(body);
        exchange.close();
    }

    private static String counts() {
        StringBuilder json = new StringBuilder("{");
        for (Map.Entry<String, AtomicLong[]> entry : new TreeMap<>(COUNTS).entrySet()) {
            json.append(json.length() == 1 ? "" : ",");
            json.append(String.format("\"%s\":{\"requests\":%d,\"alloc_bytes\":%d}",
                    entry.getKey(), entry.getValue()[0].get(), entry.getValue()[1].get()));
        }
        return json.append("}\n").toString();
    }
}
