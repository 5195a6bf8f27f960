// The range's servlet, for Tomcat: /plain and /NAME/BYTES, where NAME says when
// BYTES are allocated and freed; its own counts are at /counts. PostgreSQL and
// Redis at POSTGRES_PORT and REDIS_PORT, a few connections each, shared by all
// threads. A block is an array of bytes. Deliberately not here: anything that
// knows memtrace.

import jakarta.servlet.http.HttpServlet;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.Socket;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.Statement;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.Callable;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

public class Range extends HttpServlet {
  private static final int POOL = 8;
  private final List<byte[]> kept = new CopyOnWriteArrayList<>();
  private volatile byte[] forTheNext;
  private final Map<String, Integer> counts = new TreeMap<>();
  private final BlockingQueue<Connection> databases = new ArrayBlockingQueue<>(POOL);
  private final BlockingQueue<Socket> caches = new ArrayBlockingQueue<>(POOL);
  private final ExecutorService workers = Executors.newFixedThreadPool(POOL);

  @Override
  public void init() {
    try {
      Class.forName("org.postgresql.Driver");
      String url = "jdbc:postgresql://127.0.0.1:" + System.getenv("POSTGRES_PORT")
          + "/postgres?user=postgres&sslmode=disable";
      for (int i = 0; i < POOL; i++) {
        databases.add(DriverManager.getConnection(url));
        Socket cache = new Socket("127.0.0.1", Integer.parseInt(System.getenv("REDIS_PORT")));
        cache.setTcpNoDelay(true);
        caches.add(cache);
      }
    } catch (Exception failure) {
      throw new IllegalStateException(failure);
    }
  }

  /** The sizes of pieces in the given proportions, which add up exactly. */
  private static int[] parts(int bytes, int... shares) {
    int whole = 0;
    for (int share : shares) whole += share;
    int[] sizes = new int[shares.length];
    int sum = 0;
    for (int i = 0; i < shares.length; i++) {
      sizes[i] = (int) ((long) bytes * shares[i] / whole);
      sum += sizes[i];
    }
    sizes[shares.length - 1] += bytes - sum;
    return sizes;
  }

  private interface Between {
    void happens() throws Exception;
  }

  private static int around(int bytes, Between between) throws Exception {
    int[] sizes = parts(bytes, 1, 3);
    byte[] first = new byte[sizes[0]];
    between.happens();
    byte[] second = new byte[sizes[1]];
    return first.length + second.length;
  }

  private void query() throws Exception {
    Connection connection = databases.take();
    try (Statement statement = connection.createStatement()) {
      statement.execute("SELECT pg_sleep(0.004)");
    } finally {
      databases.add(connection);
    }
  }

  private void increment() throws Exception {
    Socket socket = caches.take();
    try {
      OutputStream out = socket.getOutputStream();
      out.write("*2\r\n$4\r\nINCR\r\n$8\r\nrequests\r\n".getBytes());
      InputStream in = socket.getInputStream();
      int last;
      do {
        last = in.read();
      } while (last != '\n' && last >= 0);
    } finally {
      caches.add(socket);
    }
  }

  private int serve(String name, int bytes) throws Exception {
    switch (name) {
      case "plain":
        return 0;
      case "freed":
        return around(bytes, () -> {});
      case "later":
        forTheNext = new byte[bytes];
        return forTheNext.length;
      case "kept":
        kept.add(new byte[bytes]);
        return bytes;
      case "sleep":
        return around(bytes, () -> Thread.sleep(5));
      case "database":
        return around(bytes, this::query);
      case "cache":
        return around(bytes, this::increment);
      case "thread":
        int[] sizes = parts(bytes, 1, 4, 3);
        byte[] first = new byte[sizes[0]];
        Callable<byte[]> work = () -> new byte[sizes[1]];
        byte[] second = workers.submit(work).get();
        return first.length + second.length + new byte[sizes[2]].length;
      default:
        return -1;
    }
  }

  @Override
  protected void doGet(HttpServletRequest request, HttpServletResponse response)
      throws IOException {
    String path = request.getRequestURI();
    String[] words = path.split("/");
    if (words[1].equals("counts")) {
      response.getOutputStream().print(counted());
      return;
    }
    int answer;
    try {
      answer = serve(words[1], words.length > 2 ? Integer.parseInt(words[2]) : 0);
    } catch (Exception failure) {
      throw new IOException(failure);
    }
    int status = answer < 0 ? 404 : 200;
    synchronized (counts) {
      counts.merge(path, 1, Integer::sum);
    }
    response.setStatus(status);
    response.setContentType("text/plain");
    response.getOutputStream().print(answer + "\n");
  }

  /** All that is counted was answered with 200: nothing else is asked for. */
  private String counted() {
    StringBuilder json = new StringBuilder("{");
    synchronized (counts) {
      counts.forEach((path, count) -> {
        String comma = json.length() == 1 ? "" : ",";
        json.append(comma).append('"').append(path).append("\":{\"200\":").append(count)
            .append('}');
      });
    }
    return json.append('}').toString();
  }
}
