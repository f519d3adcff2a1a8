#include "CVersion.h"

#ifndef CFSOCI_COMMIT
#define CFSOCI_COMMIT ""
#endif

const char *cfsoci_commit(void) { return CFSOCI_COMMIT; }
