// BootFormats: the documents and executables of which a system boots. Bytes in, values out; the module does no I/O.
//
// - `PortableExecutable` finds the sections of an EFI program, and `UnifiedKernelImage` gives those of a kernel or an addon a meaning.
// - `LoaderEntry` is a Type 1 entry of a boot loader, `LoaderEntryName` its file name with the counters of boot attempts, and
//   `compareVersions` the order of versions that boot loaders use; `EntryRank` is that of entries.
// - `OSRelease` is os-release(5).
// - `KernelCommandLine` splits kernel arguments, and `ComposefsArgument` is the one that names the image of the root file system.
