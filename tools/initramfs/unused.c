// Takes the place of libzstd, zlib and ISA-L in cfsoci-setup-root, which compresses and decompresses nothing.
//
// The linker leaves out what the program does not use, but not the destructors of classes, even if nothing makes their objects. So these functions are
// referred to, and never called. If the program used one of these libraries, another function would be missing, and the link would fail.
#include <stdlib.h>

int deflateEnd(void *stream) { (void)stream, abort(); }
size_t ZSTD_freeCCtx(void *context) { (void)context, abort(); }
size_t ZSTD_freeDCtx(void *context) { (void)context, abort(); }
