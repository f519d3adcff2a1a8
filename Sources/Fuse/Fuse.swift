// Fuse: a read-only FUSE server for composefs images, for users who may not mount and for kernels that cannot.
//
// The server reads metadata from an `ErofsImage` in memory and file contents from objects, which an `ObjectOpener` provides. It does not
// know the repository. The protocol is that of linux/fuse.h; no library is used.
//
// - `FuseMount` mounts the file system, directly or through fusermount3; `AttachedFuseMount` unmounts it.
// - `FuseServer` answers the kernel's requests; `ImageFileSystem` maps them to the image and its objects.
// - `ObjectVerifier` hashes each object once, unless the kernel checks it with fs-verity.
