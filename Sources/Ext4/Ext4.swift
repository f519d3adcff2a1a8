// Ext4: ext4 file systems for virtual machines, written, read and grown (Documentation/filesystems/ext4/ of the Linux kernel; fs/ext4/*.h).
//
// The module does no I/O: a tree becomes a plan, and the plan becomes blocks of metadata and a list of places for the contents of files. The same
// input gives the same bytes. Read images are hostile: every length and checksum is checked before it is used.
//
// - `Ext4Plan` numbers the inodes of a tree and allocates blocks. `Ext4Metadata` and `Ext4Placements` are its results, both in ascending order.
// - `Ext4Image` reads an image: inodes, directories, contents and extended attributes.
// - `growExt4` makes a clean file system larger.
// - The structures in Ext4Layouts.swift are the only place that has on-disk offsets. `Geometry` says which blocks a group's own metadata occupy.
