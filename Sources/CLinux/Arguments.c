#include "CLinux.h"

static int argumentCount;
static char **arguments;

// The C library calls constructors with what it calls main with. Swift's CommandLine reads /proc/self/cmdline instead: where /proc is not
// mounted, it finds no arguments at all.
__attribute__((constructor)) static void keepArguments(int count, char **values) {
    argumentCount = count;
    arguments = values;
}

size_t cl_argument_count(void) { return argumentCount > 0 ? (size_t)argumentCount : 0; }

const char *cl_argument(size_t index) { return index < cl_argument_count() ? arguments[index] : NULL; }
