#include "CVersion.h"

#ifndef CFSOCI_COMMIT
#define CFSOCI_COMMIT ""
#endif

const char *cfsoci_commit(void) { return CFSOCI_COMMIT; }

#define CFSOCI_RELEASE "0.1.0"

const char *cfsoci_release(void) { return CFSOCI_RELEASE; }
