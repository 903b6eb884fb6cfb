/* Stands between vpnd and the C library, by LD_PRELOAD: fails the calls that a test wants to see fail, and counts.
   strace(1) could fail calls, too, but cannot tell a send that is to be cut (UDP_SEGMENT) from a plain one, counts
   by thread, and slows all down. The rules are a file that the test writes while vpnd runs; see faults.rs. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_net.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* In the order of `Call` in faults.rs. */
enum call { SEND_ONE, SEND_TOGETHER, RECEIVE, READ, WRITE_ONE, WRITE_MERGED, CALLS };

/* `error` (0: none) for each call whose number is a multiple of `every`. */
struct rule { int64_t error, every, made, failed; };

static struct rule *rules;

__attribute__((constructor)) static void open_rules(void) {
    const char *path = getenv("VPND_FAULTS");
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *mapped = mmap(NULL, CALLS * sizeof(struct rule), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (mapped != MAP_FAILED) rules = mapped;
}

static int fails(enum call call) {
    struct rule *rule = &rules[call];
    int64_t made = __atomic_add_fetch(&rule->made, 1, __ATOMIC_RELAXED);
    int64_t error = __atomic_load_n(&rule->error, __ATOMIC_ACQUIRE);
    if (error == 0 || made % rule->every != 0) return 0;
    __atomic_add_fetch(&rule->failed, 1, __ATOMIC_RELAXED);
    errno = (int)error;
    return 1;
}

static int is_internet(int file) {
    int domain = 0;
    socklen_t length = sizeof domain;
    return getsockopt(file, SOL_SOCKET, SO_DOMAIN, &domain, &length) == 0 &&
           (domain == AF_INET || domain == AF_INET6);
}

/* /dev/net/tun. A request of the device (TUNGETIFF) is no call that a data thread may make. */
static int is_tun(int file) {
    struct stat found;
    return fstat(file, &found) == 0 && S_ISCHR(found.st_mode) && found.st_rdev == makedev(10, 200);
}

static int is_to_be_cut(const struct msghdr *message) {
    struct msghdr *walked = (struct msghdr *)message;
    for (struct cmsghdr *one = CMSG_FIRSTHDR(walked); one; one = CMSG_NXTHDR(walked, one))
        if (one->cmsg_level == SOL_UDP && one->cmsg_type == UDP_SEGMENT) return 1;
    return 0;
}

ssize_t sendmsg(int file, const struct msghdr *message, int flags) {
    int saved = errno;
    if (rules && message->msg_name && is_internet(file) && fails(is_to_be_cut(message) ? SEND_TOGETHER : SEND_ONE))
        return -1;
    errno = saved;
    return syscall(SYS_sendmsg, file, message, flags);
}

ssize_t recvmsg(int file, struct msghdr *message, int flags) {
    int saved = errno;
    if (rules && is_internet(file) && fails(RECEIVE)) return -1;
    errno = saved;
    return syscall(SYS_recvmsg, file, message, flags);
}

ssize_t read(int file, void *bytes, size_t length) {
    int saved = errno;
    if (rules && length > 60000 && is_tun(file) && fails(READ)) return -1;
    errno = saved;
    return syscall(SYS_read, file, bytes, length);
}

ssize_t write(int file, const void *bytes, size_t length) {
    int saved = errno;
    const struct virtio_net_hdr *header = bytes;
    if (rules && length > sizeof *header && is_tun(file) &&
        fails(header->gso_type == VIRTIO_NET_HDR_GSO_NONE ? WRITE_ONE : WRITE_MERGED))
        return -1;
    errno = saved;
    return syscall(SYS_write, file, bytes, length);
}
