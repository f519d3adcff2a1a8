// VarlinkService: `org.composefs.Repository` and `org.composefs.Oci` of composefs-rs, on sockets of the local machine.
//
// The service opens no repository by itself: a client opens one and gets a handle, which belongs to its connection. Clients are trusted to do
// what the process may do, and not to behave: connections, messages, descriptors, handles and the time of slow ones are limited.
//
// - `VarlinkServer` accepts connections, each of which has a thread (`ServiceConnection`); `ServiceOptions` has the limits.
// - `Session` has the handles of a connection and the methods: one file for each subject.
// - Interfaces: their descriptions in varlink's language, by which calls are checked for known methods.
// - Layers: archives in and out as streams of chunks that name files (`ComposefsVarlink.DirectoryStreamChunk`).
// - `ListeningPath` is a socket in the file system, made and removed with care.
