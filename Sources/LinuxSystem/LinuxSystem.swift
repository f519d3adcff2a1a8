// LinuxSystem: Linux system calls as Swift functions that throw `SystemError`, on top of the C functions of CLinux.
//
// All other modules reach the kernel through this one. It contains no policy: it does not know repositories, images or OCI. Calls that
// change something pass through `Kernel`, so that tests can record them, make them fail, or stop between any two of them.
//
// - `FileDescriptor` owns an open file; its extensions open, read, write, link, rename, lock, sync and list.
// - `RootedDirectory` is a directory that paths cannot leave, even if other users can write below it.
// - `FileSystemContext`, `MountAttributes` and `LoopDevice` are the mount API; `FuseDevice` is a FUSE connection.
// - `LocalListener` and `LocalConnection` are sockets of the local machine, over which descriptors can be passed.
// - `FileMapping` is a file in memory, and `SpilledMemory` memory for large arrays that is partly in such files.
// - `Host` has facts about the machine; `ChildProcess`, `Signal` and `Terminal` are for the command.
