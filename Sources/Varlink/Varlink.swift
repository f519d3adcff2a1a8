// Varlink: the protocol of varlink.org as values, and the layer streams that pass beside it.
//
// The module does no I/O and knows no method. Bytes come from any local program and are hostile: lengths are limited, and nothing is allocated
// that a length field only announces.
//
// - `FrameReader` takes bytes apart into messages, each of which ends with a NUL.
// - `VarlinkCall` and `VarlinkReply` are the messages; `ParameterReader` reads the parameters of a call, and refuses unknown ones.
// - `VarlinkInterface` is an interface's description with the names of its methods.
// - `VarlinkAddress` is the address of a socket.
// - `DirectoryStreamReader` and `DirectoryStreamChunk` are composefs-rs's "splitdirfdstream": a tar archive whose file contents are named by
//   directory and path.
