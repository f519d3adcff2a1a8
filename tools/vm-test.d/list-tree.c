/* Writes all that a kernel shows of a tree to standard output, for tools/vm-test.d/corpus, which says what the records mean.
 *
 *     list-tree TITLE DIRECTORY
 *
 * Each record is a line of numbers, and bytes whose lengths it states. It runs as root in the virtual machine. */
#define _GNU_SOURCE
#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

static char path[1 << 20];
/* The most that a kernel returns. */
static char value[1 << 16], names[1 << 16], target[1 << 12];
static char part[1 << 20];

static void put(const char *bytes, size_t count) {
    if (fwrite(bytes, 1, count, stdout) != count) err(1, "writing the result");
}

static void content(const char *name) {
    int file = open(name, O_RDONLY | O_NOFOLLOW);
    if (file < 0) err(1, "opening %s", path);
    ssize_t count;
    while ((count = read(file, part, sizeof part)) > 0) {
        printf("%zd\n", count);
        put(part, count);
    }
    if (count < 0) err(1, "reading %s", path);
    printf("0\n");
    close(file);
}

static void attributes(const char *name, int has_user_attributes) {
    ssize_t length = llistxattr(name, names, sizeof names);
    if (length < 0) err(1, "the attributes of %s", path);
    for (const char *each = names; each < names + length; each += strlen(each) + 1) {
        /* The kernel lists them for links and special files, and does not return them. */
        if (!has_user_attributes && strncmp(each, "user.", 5) == 0) continue;
        ssize_t size = lgetxattr(name, each, value, sizeof value);
        if (size < 0) err(1, "attribute %s of %s", each, path);
        printf("xattr %zu %zd\n", strlen(each), size);
        put(each, strlen(each));
        put(value, size);
    }
}

/* `name` is relative to the working directory, so that paths may have any length. `length` is that of `path`, which is for the reader. */
static void entry(const char *name, size_t length) {
    struct stat status;
    if (lstat(name, &status) != 0) err(1, "the status of %s", path);
    printf("entry %zu %o %u %u %" PRId64 " %ld %" PRId64 " %u %u %" PRIu64 " %lu\n", length, status.st_mode, status.st_uid, status.st_gid,
           (int64_t)status.st_mtim.tv_sec, status.st_mtim.tv_nsec, (int64_t)status.st_size, major(status.st_rdev), minor(status.st_rdev),
           (uint64_t)status.st_ino, (unsigned long)status.st_nlink);
    put(path, length);
    if (S_ISREG(status.st_mode)) content(name);
    if (S_ISLNK(status.st_mode)) {
        ssize_t count = readlink(name, target, sizeof target);
        if (count < 0) err(1, "the target of %s", path);
        printf("%zd\n", count);
        put(target, count);
    }
    attributes(name, S_ISREG(status.st_mode) || S_ISDIR(status.st_mode));
    if (!S_ISDIR(status.st_mode)) return;

    int above = open(".", O_RDONLY | O_DIRECTORY), here = open(name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    DIR *listing = here < 0 ? NULL : fdopendir(here);
    if (above < 0 || listing == NULL || fchdir(here) != 0) err(1, "opening %s", path);
    struct dirent *child;
    while ((errno = 0, child = readdir(listing)) != NULL) {
        if (strcmp(child->d_name, ".") == 0 || strcmp(child->d_name, "..") == 0) continue;
        size_t more = strlen(child->d_name) + 1;
        if (length + more >= sizeof path) errx(1, "the path is too long: %s", path);
        path[length] = '/';
        memcpy(path + length + 1, child->d_name, more);
        entry(child->d_name, length + more);
        path[length] = 0;
    }
    if (errno != 0) err(1, "listing %s", path);
    if (fchdir(above) != 0) err(1, "leaving %s", path);
    closedir(listing);
    close(above);
}

int main(int count, char **arguments) {
    if (count != 3) errx(2, "usage: list-tree TITLE DIRECTORY");
    printf("tree %s\n", arguments[1]);
    if (chdir(arguments[2]) != 0) err(1, "%s", arguments[2]);
    entry(".", 0);
    printf("end\n");
    if (fflush(stdout) != 0) err(1, "writing the result");
    return 0;
}
