#include "CLinux.h"

static int argumentCount;
static char **arguments;

// glibc passes constructors the same arguments as main. Swift's CommandLine reads /proc/self/cmdline instead, and finds no arguments when
// /proc is not mounted.
__attribute__((constructor)) static void keepArguments(int count, char **values) {
    argumentCount = count;
    arguments = values;
}

size_t cl_argument_count(void) { return argumentCount > 0 ? (size_t)argumentCount : 0; }

const char *cl_argument(size_t index) { return index < cl_argument_count() ? arguments[index] : NULL; }
