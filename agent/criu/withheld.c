/* What a dump by CRIU is not shown: memory that our own transfer process reads from the frozen tasks (docs/window.md).
 *
 * Preloaded into CRIU (agent/criu/swrk.py). CRIU asks the kernel for populated pages with PAGEMAP_SCAN; a scan is cut so that it never
 * enters an area that is listed in the file $MIGRATE_WITHHELD: native u64 triples pid, start, end, sorted by pid and start, disjoint,
 * page aligned. To CRIU those areas look mapped and untouched, as memory that was never written does: no page of them is spliced, listed or
 * written. CRIU takes a scan that ends early for what it is and asks on from where it ended. Without the file nothing is changed.
 *
 * Of memory that tasks share CRIU asks with lseek(SEEK_DATA) where its pages are. That which is listed, with 0 for the pid, its inode, and
 * its device as major << 32 | minor, has none.
 *
 * No headers and no library is named: it is loaded beside whatever libc CRIU brings, and by its wrapper's shell too.
 */
typedef unsigned long u64;
_Static_assert(sizeof(u64) == 8, "a 64-bit machine");

extern long syscall(long number, ...);
extern char *getenv(const char *name);
extern int open(const char *path, int flags, ...);
extern int close(int fd);
extern int *__errno_location(void);
extern long readlink(const char *path, char *buffer, u64 size);
extern void *mmap(void *address, u64 length, int prot, int flags, int fd, long offset);

#if defined(__x86_64__)
#define NR_IOCTL 16
#define NR_LSEEK 8
#define NR_STATX 332
#define CLOEXEC 02000000
#elif defined(__aarch64__)
#define NR_IOCTL 29
#define NR_LSEEK 62
#define NR_STATX 291
#define CLOEXEC 02000000
#else
#error "unknown architecture"
#endif

/* linux/fs.h */
#define PAGEMAP_SCAN 0xC0606610UL
#define PAGE_IS_PRESENT (1UL << 3)
struct scan {
	u64 size, flags, start, end, walk_end, vec, vec_len, max_pages;
	u64 category_inverted, category_mask, category_anyof_mask, return_mask;
};

/* linux/stat.h, as far as it is read; the kernel fills 256 bytes */
struct statx {
	u64 before[4], inode;
	u64 between[12];
	unsigned int dev_major, dev_minor;
	u64 behind[14];
};
_Static_assert(__builtin_offsetof(struct statx, dev_major) == 0x88 && sizeof(struct statx) == 256, "statx");

struct area {
	u64 pid, start, end;
};
static const struct area *areas;
static long count;

static void load(void)
{
	const char *path = getenv("MIGRATE_WITHHELD");
	long size;
	void *map;
	int fd;

	fd = path ? open(path, CLOEXEC /* O_RDONLY */) : -1;
	if (fd < 0)
		return;
	size = syscall(NR_LSEEK, fd, 0L, 2 /* SEEK_END */);
	if (size >= (long)sizeof(struct area)) {
		map = mmap(0, size, 1 /* PROT_READ */, 2 /* MAP_PRIVATE */, fd, 0);
		if ((long)map != -1) {
			areas = map;
			count = size / sizeof(struct area);
		}
	}
	close(fd);
}

/* The N of a descriptor of /proc/N/pagemap, 0 of any other. */
static u64 pid_of(int fd)
{
	static const char tail[] = "/pagemap";
	char path[40] = "/proc/self/fd/", digits[12], link[128];
	int at = 14, n = 0;
	long length, i;
	u64 pid = 0, ten = 1;

	do
		digits[n++] = '0' + fd % 10;
	while ((fd /= 10) > 0);
	while (n)
		path[at++] = digits[--n];
	path[at] = 0;
	length = readlink(path, link, sizeof(link)) - (long)(sizeof(tail) - 1);
	if (length <= 0)
		return 0;
	for (i = 0; i < (long)sizeof(tail) - 1; i++)
		if (link[length + i] != tail[i])
			return 0;
	for (i = length - 1; i >= 0 && link[i] >= '0' && link[i] <= '9'; i--, ten *= 10)
		pid += (link[i] - '0') * ten;
	return pid;
}

int ioctl(int fd, u64 request, void *argument)
{
	struct scan *scan = argument, cut;
	long found, i;
	u64 pid;

	if (request != PAGEMAP_SCAN || !(scan->return_mask & PAGE_IS_PRESENT))
		return syscall(NR_IOCTL, fd, request, argument);
	if (!count)
		load(); /* it is written while CRIU waits, after CRIU has tried the kernel on itself */
	if (!count || !(pid = pid_of(fd)))
		return syscall(NR_IOCTL, fd, request, argument);
	cut = *scan;
	for (i = 0; i < count && cut.start < cut.end; i++) {
		if (areas[i].pid != pid || areas[i].end <= cut.start)
			continue;
		if (areas[i].start <= cut.start)
			cut.start = areas[i].end;
		else if (areas[i].start < cut.end)
			cut.end = areas[i].start;
		else
			break;
	}
	if (cut.start >= cut.end) {
		scan->walk_end = scan->end;
		return 0;
	}
	found = syscall(NR_IOCTL, fd, request, &cut);
	if (found >= 0)
		scan->walk_end = cut.walk_end;
	return found;
}

static int is_withheld(int fd)
{
	struct statx now;
	long i;

	if (!count)
		load();
	if (!count || areas[0].pid || syscall(NR_STATX, fd, "", 0x1000 /* AT_EMPTY_PATH */, 0x100 /* STATX_INO */, &now))
		return 0;
	for (i = 0; i < count && !areas[i].pid; i++)
		if (areas[i].start == now.inode && areas[i].end == ((u64)now.dev_major << 32 | now.dev_minor))
			return 1;
	return 0;
}

long lseek64(int fd, long offset, int whence)
{
	if (whence == 3 /* SEEK_DATA */ && is_withheld(fd)) {
		*__errno_location() = 6; /* ENXIO: no data from there on */
		return -1;
	}
	return syscall(NR_LSEEK, fd, offset, whence);
}

long lseek(int fd, long offset, int whence)
{
	return lseek64(fd, offset, whence);
}
