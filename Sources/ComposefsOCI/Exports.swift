// One import gives a program everything that the command does.
@_exported public import Bytes
@_exported public import Dumpfile
@_exported public import EROFS
@_exported public import FileTree
@_exported public import Hashing
@_exported public import JSON
@_exported public import Mounting
@_exported public import OCI
@_exported public import Registry
@_exported public import Repository
