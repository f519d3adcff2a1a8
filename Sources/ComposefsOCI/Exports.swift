// One import gives a program everything that the command does. Of LinuxSystem only what the other modules' interfaces speak of: its
// names are too common to be given to everybody.
@_exported public import Bytes
@_exported public import Dumpfile
@_exported public import EROFS
@_exported public import FileTree
@_exported public import Fuse
@_exported public import Hashing
@_exported public import JSON
@_exported public import Mounting
@_exported public import OCI
@_exported public import Registry
@_exported public import Repository
@_exported public import SplitStream
@_exported public import Tar

@_exported public import enum Compression.CompressionFormat
@_exported public import struct LinuxSystem.FileDescriptor
@_exported public import struct LinuxSystem.MountAttributes
@_exported public import struct LinuxSystem.SystemError
