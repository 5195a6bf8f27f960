# The range's Rack application, for puma.
#
# /plain and /NAME/BYTES, where NAME says when BYTES are allocated and freed; its
# own counts are at /counts. PostgreSQL and Redis at POSTGRES_PORT and REDIS_PORT,
# a few connections each, shared by all threads. A block is a String of that
# capacity: one malloc, freed when Ruby collects it. Deliberately not here:
# anything that knows memtrace.

require 'json'
require 'pg'
require 'redis'

# A few connections, all open from the start.
class Pool
  def initialize(size)
    @idle = Thread::Queue.new
    size.times { @idle << yield }
  end

  def with
    connection = @idle.pop
    yield connection
  ensure
    @idle << connection
  end
end

DATABASE = Pool.new(8) { PG.connect(host: '127.0.0.1', port: ENV['POSTGRES_PORT'], user: 'postgres', dbname: 'postgres') }
CACHE = Pool.new(8) { Redis.new(port: ENV['REDIS_PORT'].to_i).tap(&:ping) }
COUNTS = Hash.new { |counts, path| counts[path] = Hash.new(0) }
COUNTING = Mutex.new
KEPT = []
FOR_THE_NEXT = []

def block(bytes)
  String.new(capacity: bytes)
end

# The sizes of pieces in the given proportions, which add up exactly.
def parts(bytes, *shares)
  sizes = shares.map { |share| bytes * share / shares.sum }
  sizes[-1] += bytes - sizes.sum
  sizes
end

# A piece, what the block does, and another.
def around(bytes)
  before, after = parts(bytes, 1, 3)
  first = block(before)
  yield
  second = block(after)
  [first, second].size
end

ENDPOINTS = {
  'plain' => ->(_) {},
  'freed' => ->(bytes) { around(bytes) {} },
  'later' => ->(bytes) { FOR_THE_NEXT[0] = block(bytes) },
  'kept' => ->(bytes) { KEPT << block(bytes) },
  'sleep' => ->(bytes) { around(bytes) { sleep 0.005 } },
  'database' => ->(bytes) { around(bytes) { DATABASE.with { |c| c.exec('SELECT pg_sleep(0.004)') } } },
  'cache' => ->(bytes) { around(bytes) { CACHE.with { |c| c.incr('requests') } } },
  'thread' => lambda { |bytes|
    before, within, after = parts(bytes, 1, 4, 3)
    first = block(before)
    Thread.new { block(within) }.join
    [first, block(after)]
  },
}.freeze

run lambda { |env|
  path = env['PATH_INFO']
  _, name, bytes = path.split('/')
  next [200, {}, [JSON.generate(COUNTING.synchronize { COUNTS.dup })]] if name == 'counts'

  endpoint = ENDPOINTS[name]
  endpoint&.call(bytes.to_i)
  status = endpoint ? 200 : 404
  COUNTING.synchronize { COUNTS[path][status.to_s] += 1 }
  [status, { 'content-type' => 'text/plain' }, ["#{name}\n"]]
}
