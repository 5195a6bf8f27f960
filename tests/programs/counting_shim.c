// An LD_PRELOAD library that counts a process's heap calls exactly.
//
// In:  the calls malloc, calloc, realloc, memalign, aligned_alloc,
//      posix_memalign, valloc, pvalloc and free of the process it is loaded
//      into, and COUNTING_SHIM_FILE, the stem of the files to count in.
// Out: one page per process, `<stem>.<pid>`, shared and mapped, so that
//      another process can read the counters at any moment (layout: `struct
//      counters`). A forked child counts from zero in a file of its own; a
//      process that execs keeps counting in the file it has.
//
// What counts as what:
//   - a successful allocation is one alloc of the size that was asked for;
//   - free(p) with p != NULL is one free of the size that was asked for;
//   - a successful realloc(p, n), p != NULL, is a free of the old block and an
//     alloc of n; realloc(NULL, n) is an alloc; realloc(p, 0) that returns
//     NULL is a free (glibc); a failed call changes nothing.
//   - only the outermost call counts, were the allocator to call itself.
//
// Deliberately not here: reallocarray, strdup and the like (glibc's reach
// malloc and realloc through the dynamic linker and so arrive here), and the
// blocks glibc itself gives back when a thread ends (its cache of freed blocks,
// already counted as freed).

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAGIC 0x31304d4948535443ULL // "CTSHIM01"
#define FILE_BYTES 4096
#define BOOTSTRAP_BYTES 65536
#define BUCKETS 65536 // a power of two
#define LOCKS 256     // a power of two that divides BUCKETS
#define NODES_PER_SLAB 4096

// The file's layout: eight-byte little-endian fields in this order.
struct counters {
  uint64_t magic;
  uint64_t pid;
  _Atomic uint64_t alloc_count;
  _Atomic uint64_t alloc_bytes;
  _Atomic uint64_t free_count;
  _Atomic uint64_t free_bytes;
  _Atomic uint64_t nested_count;       // calls from within the allocator, not counted above
  _Atomic uint64_t free_unknown_count; // counted frees of blocks whose size was never seen
};

struct node {
  struct node *next;
  uintptr_t address;
  size_t bytes;
};

static void *(*real_malloc)(size_t);
static void *(*real_calloc)(size_t, size_t);
static void *(*real_realloc)(void *, size_t);
static void *(*real_memalign)(size_t, size_t);
static void *(*real_aligned_alloc)(size_t, size_t);
static int (*real_posix_memalign)(void **, size_t, size_t);
static void *(*real_valloc)(size_t);
static void *(*real_pvalloc)(size_t);
static void (*real_free)(void *);

// Counts before the file is mapped go here and are carried over.
static struct counters early_counters;
static struct counters *_Atomic counters = &early_counters;

// dlsym may itself allocate before the real functions are known.
static _Alignas(16) char bootstrap[BOOTSTRAP_BYTES];
static _Atomic size_t bootstrap_used;

static struct node *buckets[BUCKETS];
static struct node *spare_nodes[LOCKS];
static atomic_flag locks[LOCKS];

// initial-exec: reading the variable must not allocate.
static __thread int depth __attribute__((tls_model("initial-exec")));
static __thread int resolving __attribute__((tls_model("initial-exec")));

static void die(const char *what) {
  ssize_t ignored = write(2, what, strlen(what));
  (void)ignored;
  _exit(97);
}

// ---- requested sizes by address -------------------------------------------

static size_t bucket_of(uintptr_t address) {
  return (size_t)((address * 0x9E3779B97F4A7C15ULL) >> 48) & (BUCKETS - 1);
}

static void lock_take(size_t lock) {
  while (atomic_flag_test_and_set_explicit(&locks[lock], memory_order_acquire)) {
  }
}

static void lock_release(size_t lock) {
  atomic_flag_clear_explicit(&locks[lock], memory_order_release);
}

static void remember(void *block, size_t bytes) {
  uintptr_t address = (uintptr_t)block;
  size_t bucket = bucket_of(address), lock = bucket & (LOCKS - 1);
  lock_take(lock);
  struct node *node = spare_nodes[lock];
  if (node == NULL) {
    node = mmap(NULL, NODES_PER_SLAB * sizeof *node, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (node == MAP_FAILED)
      die("counting shim: no memory for its table\n");
    for (size_t i = 0; i + 1 < NODES_PER_SLAB; i++)
      node[i].next = &node[i + 1];
  }
  spare_nodes[lock] = node->next;
  node->address = address;
  node->bytes = bytes;
  node->next = buckets[bucket];
  buckets[bucket] = node;
  lock_release(lock);
}

// The block's size, or -1 for a block that was never seen.
static ptrdiff_t forget(void *block) {
  uintptr_t address = (uintptr_t)block;
  size_t bucket = bucket_of(address), lock = bucket & (LOCKS - 1);
  ptrdiff_t bytes = -1;
  lock_take(lock);
  for (struct node **link = &buckets[bucket]; *link != NULL; link = &(*link)->next) {
    struct node *node = *link;
    if (node->address == address) {
      bytes = (ptrdiff_t)node->bytes;
      *link = node->next;
      node->next = spare_nodes[lock];
      spare_nodes[lock] = node;
      break;
    }
  }
  lock_release(lock);
  return bytes;
}

// ---- counting -------------------------------------------------------------

static void add(_Atomic uint64_t *counter, uint64_t amount) {
  atomic_fetch_add_explicit(counter, amount, memory_order_relaxed);
}

static void count_alloc(void *block, size_t bytes) {
  struct counters *into = atomic_load_explicit(&counters, memory_order_relaxed);
  remember(block, bytes);
  add(&into->alloc_count, 1);
  add(&into->alloc_bytes, bytes);
}

// `bytes` is what forget() said of the block.
static void count_free(ptrdiff_t bytes) {
  struct counters *into = atomic_load_explicit(&counters, memory_order_relaxed);
  add(&into->free_count, 1);
  if (bytes < 0)
    add(&into->free_unknown_count, 1);
  else
    add(&into->free_bytes, (uint64_t)bytes);
}

static int enter(void) {
  if (depth++ == 0)
    return 1;
  add(&atomic_load_explicit(&counters, memory_order_relaxed)->nested_count, 1);
  return 0;
}

static void leave(void) { depth--; }

// ---- the file -------------------------------------------------------------

// Kept from the start, as servers clear their environment.
static char stem[3072];

static void map_file(void) {
  if (stem[0] == '\0')
    return;
  char path[4096];
  snprintf(path, sizeof path, "%s.%d", stem, (int)getpid());
  int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (fd < 0 || ftruncate(fd, FILE_BYTES) != 0)
    die("counting shim: cannot create the file named by COUNTING_SHIM_FILE\n");
  struct counters *mapped =
      mmap(NULL, FILE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  if (mapped == MAP_FAILED)
    die("counting shim: cannot map the file named by COUNTING_SHIM_FILE\n");
  struct counters *before = atomic_load(&counters);
  add(&mapped->alloc_count, before->alloc_count);
  add(&mapped->alloc_bytes, before->alloc_bytes);
  add(&mapped->free_count, before->free_count);
  add(&mapped->free_bytes, before->free_bytes);
  add(&mapped->nested_count, before->nested_count);
  add(&mapped->free_unknown_count, before->free_unknown_count);
  mapped->pid = (uint64_t)getpid();
  atomic_store(&counters, mapped);
  atomic_thread_fence(memory_order_release);
  mapped->magic = MAGIC;
}

// A fork while another thread holds a lock would leave it held in the child.
static void before_fork(void) {
  for (size_t lock = 0; lock < LOCKS; lock++)
    lock_take(lock);
}

static void after_fork_in_parent(void) {
  for (size_t lock = 0; lock < LOCKS; lock++)
    lock_release(lock);
}

static void after_fork_in_child(void) {
  after_fork_in_parent();
  struct counters *parents = atomic_load(&counters);
  memset(&early_counters, 0, sizeof early_counters);
  atomic_store(&counters, &early_counters);
  if (parents != &early_counters)
    munmap(parents, FILE_BYTES);
  map_file();
}

static void resolve(void) {
  if (resolving)
    return;
  resolving = 1;
  real_malloc = dlsym(RTLD_NEXT, "malloc");
  real_calloc = dlsym(RTLD_NEXT, "calloc");
  real_realloc = dlsym(RTLD_NEXT, "realloc");
  real_memalign = dlsym(RTLD_NEXT, "memalign");
  real_aligned_alloc = dlsym(RTLD_NEXT, "aligned_alloc");
  real_posix_memalign = dlsym(RTLD_NEXT, "posix_memalign");
  real_valloc = dlsym(RTLD_NEXT, "valloc");
  real_pvalloc = dlsym(RTLD_NEXT, "pvalloc");
  // Last: the others are only called once this one is known.
  real_free = dlsym(RTLD_NEXT, "free");
  resolving = 0;
  if (real_malloc == NULL || real_calloc == NULL || real_realloc == NULL || real_free == NULL)
    die("counting shim: no allocator behind this one\n");
}

__attribute__((constructor)) static void start(void) {
  resolve();
  const char *asked = getenv("COUNTING_SHIM_FILE");
  if (asked != NULL && strlen(asked) >= sizeof stem)
    die("counting shim: COUNTING_SHIM_FILE is too long\n");
  strcpy(stem, asked == NULL ? "" : asked);
  map_file();
  pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

static int ready(void) {
  if (real_free == NULL)
    resolve();
  return real_free != NULL;
}

// ---- the bootstrap allocator: never freed, never counted --------------------

static int is_bootstrap(const void *block) {
  return (const char *)block >= bootstrap && (const char *)block < bootstrap + BOOTSTRAP_BYTES;
}

static void *bootstrap_alloc(size_t bytes) {
  size_t rounded = (bytes + 31) & ~(size_t)15; // 16 in front hold the size
  size_t offset = atomic_fetch_add(&bootstrap_used, rounded);
  if (bytes > BOOTSTRAP_BYTES || offset + rounded > BOOTSTRAP_BYTES)
    die("counting shim: the bootstrap buffer is too small\n");
  memcpy(bootstrap + offset, &bytes, sizeof bytes);
  return bootstrap + offset + 16;
}

static size_t bootstrap_size(const void *block) {
  size_t bytes;
  memcpy(&bytes, (const char *)block - 16, sizeof bytes);
  return bytes;
}

// ---- the interposed functions ----------------------------------------------

static void *finish(void *block, size_t bytes, int outermost) {
  if (block != NULL && outermost)
    count_alloc(block, bytes);
  leave();
  return block;
}

void *malloc(size_t bytes) {
  if (!ready())
    return bootstrap_alloc(bytes);
  int outermost = enter();
  return finish(real_malloc(bytes), bytes, outermost);
}

void *calloc(size_t members, size_t member_bytes) {
  if (!ready())
    return bootstrap_alloc(members * member_bytes); // the buffer starts zeroed
  int outermost = enter();
  return finish(real_calloc(members, member_bytes), members * member_bytes, outermost);
}

void *memalign(size_t alignment, size_t bytes) {
  if (!ready())
    die("counting shim: memalign before the allocator was found\n");
  int outermost = enter();
  return finish(real_memalign(alignment, bytes), bytes, outermost);
}

void *aligned_alloc(size_t alignment, size_t bytes) {
  if (!ready())
    die("counting shim: aligned_alloc before the allocator was found\n");
  int outermost = enter();
  return finish(real_aligned_alloc(alignment, bytes), bytes, outermost);
}

int posix_memalign(void **block, size_t alignment, size_t bytes) {
  if (!ready())
    die("counting shim: posix_memalign before the allocator was found\n");
  int outermost = enter();
  int error = real_posix_memalign(block, alignment, bytes);
  if (error == 0 && outermost && *block != NULL)
    count_alloc(*block, bytes);
  leave();
  return error;
}

void *valloc(size_t bytes) {
  if (!ready())
    die("counting shim: valloc before the allocator was found\n");
  int outermost = enter();
  return finish(real_valloc(bytes), bytes, outermost);
}

void *pvalloc(size_t bytes) {
  if (!ready())
    die("counting shim: pvalloc before the allocator was found\n");
  int outermost = enter();
  return finish(real_pvalloc(bytes), bytes, outermost);
}

void *realloc(void *block, size_t bytes) {
  if (block != NULL && is_bootstrap(block)) {
    void *moved = malloc(bytes);
    size_t old_bytes = bootstrap_size(block);
    if (moved != NULL)
      memcpy(moved, block, old_bytes < bytes ? old_bytes : bytes);
    return moved;
  }
  if (!ready())
    return bootstrap_alloc(bytes);
  if (!enter()) {
    void *moved = real_realloc(block, bytes);
    leave();
    return moved;
  }
  // Forgotten first: once realloc has moved the block, another thread may be
  // given the old address and remember it as its own.
  ptrdiff_t old_bytes = block == NULL ? -1 : forget(block);
  void *moved = real_realloc(block, bytes);
  if (moved != NULL) {
    if (block != NULL)
      count_free(old_bytes);
    count_alloc(moved, bytes);
  } else if (block != NULL && bytes == 0) {
    count_free(old_bytes);
  } else if (block != NULL && old_bytes >= 0) {
    remember(block, (size_t)old_bytes);
  }
  leave();
  return moved;
}

void free(void *block) {
  if (block == NULL || is_bootstrap(block))
    return;
  if (!ready())
    die("counting shim: free before the allocator was found\n");
  int saved_errno = errno;
  if (enter())
    count_free(forget(block));
  real_free(block);
  leave();
  errno = saved_errno;
}
