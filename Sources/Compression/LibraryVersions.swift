internal import ComposefsCISAL
internal import ComposefsCZlib
internal import ComposefsCZstd

/// The version of the running libzstd.
package func runningZstdVersion() -> String { String(cString: ZSTD_versionString()) }

/// The version of the running zlib.
package func runningZlibVersion() -> String { String(cString: zlibVersion()) }

/// The version of ISA-L at build time: the library does not tell.
package func runningIsalVersion() -> String { "\(ISAL_MAJOR_VERSION).\(ISAL_MINOR_VERSION).\(ISAL_PATCH_VERSION)" }
