// EROFS: composefs images, written and read (Repo-Format.md, "EROFS images"; linux/fs/erofs/erofs_fs.h).
//
// The module does no I/O: a tree becomes bytes, and bytes become a checked image. Written images equal those of the reference
// implementations byte for byte. Read images are hostile until they are checked. Repository stores images, and Mounting mounts them.
//
// - `ErofsPlan` writes an image: `ImagePlan` orders the inodes, `ImageLayout` assigns offsets, `ImageEmitter` puts the bytes into a window that moves
//   over the image. `writeErofs` does the same in memory.
// - `ErofsImage` checks an image completely (`ImageWalk`) and then answers lookups, reads and listings.
// - `ErofsDiskPlan` (Disks/) is another kind of image: one for virtual machines, which holds the contents of files or addresses them on its devices.
// - The structures in ErofsLayouts.swift are the only place that has on-disk offsets.
