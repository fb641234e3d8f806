/* faultdisk: an nbdkit plugin that is a disk with faults on demand, for tests on real processes.
 *
 *   gcc -O2 -Wall -shared -fPIC -o faultdisk.so faultdisk.c
 *   nbdfuse disk [ nbdkit --exit-with-parent ./faultdisk.so file=back.img ctl=ctl.d ]
 *
 * Everything written is in back.img at once. Faults are files in ctl.d:
 *   eio        "[rwf]* [start [end]]"  matching reads, writes, flushes fail with EIO (without: all)
 *   hang       "[rwf]*" matching operations block while it exists (without: all)
 *   slow       "N": every operation takes N ms longer
 *   lost       writes are acknowledged and not stored
 *   misdirect  "N": the next write lands N bytes further; the file is removed
 *   cutafter   "N SEED": a volatile cache, and a power cut at the N-th write: of each sector that
 *              was written since the last flush any one version stays, and everything fails with
 *              EIO from then on. The file `cut` says that it happened.
 */
#define NBDKIT_API_VERSION 2
#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <nbdkit-plugin.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char *file, *ctl;
static int fd = -1;

/* Reads a control file into text; 0 if there is none. */
static int control(const char *name, char *text, size_t size) {
  char path[PATH_MAX];
  snprintf(path, sizeof path, "%s/%s", ctl, name);
  int from = open(path, O_RDONLY | O_CLOEXEC);
  if (from < 0) return 0;
  ssize_t count = read(from, text, size - 1);
  text[count > 0 ? count : 0] = 0;
  close(from);
  return 1;
}

static void forget(const char *name) {
  char path[PATH_MAX];
  snprintf(path, sizeof path, "%s/%s", ctl, name);
  unlink(path);
}

/* The errno that an operation ('r', 'w' or 'f') ends with; 0 if it goes on. */
static int fault(char operation, uint64_t offset, uint32_t length) {
  char text[64], operations[16] = "rwf";
  while (control("hang", text, sizeof text) && (text[0] == 0 || strchr(text, operation) != NULL)) {
    usleep(5000);
  }
  if (control("slow", text, sizeof text)) usleep(1000 * atoi(text));
  if (!control("eio", text, sizeof text)) return 0;
  unsigned long start = 0, end = ~0UL;
  sscanf(text, "%15s %lu %lu", operations, &start, &end);
  if (strchr(operations, operation) == NULL) return 0;
  if (operation == 'f') return EIO;
  return offset < end && offset + length > start ? EIO : 0;
}

#define SECTOR 512

/* What a write since the last flush found: for a power cut. */
struct overwritten {
  struct overwritten *earlier;
  uint64_t offset;
  uint32_t length;
  unsigned char bytes[];
};

static pthread_mutex_t cache = PTHREAD_MUTEX_INITIALIZER;
static struct overwritten *newest;
static unsigned long write_count;
static int is_cut;

static void forget_overwritten(void) {
  while (newest != NULL) {
    struct overwritten *gone = newest;
    newest = gone->earlier;
    free(gone);
  }
}

/* The power goes. From the newest write on each sector's bytes stay or go back one version. */
static void cut(unsigned seed) {
  struct stat stat;
  char path[PATH_MAX];
  fstat(fd, &stat);
  char *decided = calloc(1, stat.st_size / SECTOR + 1);
  srand(seed);
  for (struct overwritten *at = newest; at != NULL; at = at->earlier) {
    for (uint32_t done = 0; done < at->length; done += SECTOR) {
      uint64_t sector = (at->offset + done) / SECTOR;
      if (decided[sector]) continue;
      if (rand() % 2) decided[sector] = 1;
      else if (pwrite(fd, at->bytes + done, SECTOR, at->offset + done) != SECTOR) abort();
    }
  }
  free(decided);
  forget_overwritten();
  is_cut = 1;
  snprintf(path, sizeof path, "%s/cut", ctl);
  close(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
}

/* A write through the volatile cache; 0 or an errno. */
static int cached_write(const void *buffer, uint32_t length, uint64_t offset, const char *text) {
  unsigned long after = 0;
  unsigned seed = 0;
  int code = 0;
  sscanf(text, "%lu %u", &after, &seed);
  pthread_mutex_lock(&cache);
  struct overwritten *old = malloc(sizeof *old + length);
  if (is_cut || old == NULL || pread(fd, old->bytes, length, offset) != (ssize_t)length) {
    free(old);
    code = EIO;
  } else {
    old->earlier = newest;
    old->offset = offset;
    old->length = length;
    newest = old;
    if (pwrite(fd, buffer, length, offset) != (ssize_t)length) code = EIO;
    write_count += 1;
    if (write_count == after) {
      cut(seed);
      code = EIO;
    }
  }
  pthread_mutex_unlock(&cache);
  return code;
}

static int fd_config(const char *key, const char *value) {
  if (strcmp(key, "file") == 0) file = nbdkit_absolute_path(value);
  else if (strcmp(key, "ctl") == 0) ctl = nbdkit_absolute_path(value);
  else {
    nbdkit_error("unknown key %s", key);
    return -1;
  }
  return 0;
}

static int fd_complete(void) {
  if (file != NULL && ctl != NULL) return 0;
  nbdkit_error("file= and ctl= are needed");
  return -1;
}

static int fd_after_fork(void) {
  fd = open(file, O_RDWR | O_CLOEXEC);
  if (fd < 0) nbdkit_error("%s: %m", file);
  return fd < 0 ? -1 : 0;
}

static void *fd_open(int read_only) { return NBDKIT_HANDLE_NOT_NEEDED; }

static int64_t fd_size(void *handle) {
  struct stat stat;
  return fstat(fd, &stat) < 0 ? -1 : stat.st_size;
}

static int fd_yes(void *handle) { return 1; }

/* Ends an operation with an errno. */
static int failed(int code) {
  nbdkit_set_error(code);
  return -1;
}

static int fd_pread(void *handle, void *buffer, uint32_t length, uint64_t offset, uint32_t flags) {
  int code = fault('r', offset, length);
  if (code == 0 && is_cut) code = EIO;
  if (code != 0) return failed(code);
  return pread(fd, buffer, length, offset) == (ssize_t)length ? 0 : failed(EIO);
}

static int fd_pwrite(void *handle, const void *buffer, uint32_t length, uint64_t offset,
                     uint32_t flags) {
  char text[64];
  int code = fault('w', offset, length);
  if (code != 0) return failed(code);
  if (control("lost", text, sizeof text)) return 0;
  if (control("misdirect", text, sizeof text)) {
    offset += strtoull(text, NULL, 10);
    forget("misdirect");
  }
  if (control("cutafter", text, sizeof text)) {
    code = cached_write(buffer, length, offset, text);
    return code == 0 ? 0 : failed(code);
  }
  return pwrite(fd, buffer, length, offset) == (ssize_t)length ? 0 : failed(EIO);
}

static int fd_flush(void *handle, uint32_t flags) {
  int code = fault('f', 0, 0);
  pthread_mutex_lock(&cache);
  if (is_cut) code = EIO;
  if (code == 0) forget_overwritten();
  pthread_mutex_unlock(&cache);
  return code == 0 ? 0 : failed(code);
}

static struct nbdkit_plugin plugin = {
    .name = "faultdisk",
    .config = fd_config,
    .config_complete = fd_complete,
    .after_fork = fd_after_fork,
    .open = fd_open,
    .get_size = fd_size,
    .can_flush = fd_yes,
    .pread = fd_pread,
    .pwrite = fd_pwrite,
    .flush = fd_flush,
};
NBDKIT_REGISTER_PLUGIN(plugin)
