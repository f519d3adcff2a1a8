public import ComposefsBytes
public import ComposefsLinuxSystem

/// The names of images that are mounted: what stands behind `composefs:` in the sources of mounts, whoever made them. In all mount namespaces
/// whose processes the caller may look at; root sees all.
///
/// - Throws: where /proc is not mounted: nothing else tells.
public func mountedImages() throws(SystemError) -> Set<ByteString> {
    let prefix: ByteString = "composefs:"
    guard Host.hasProc else { throw SystemError("open", "/proc/self/mountinfo", .noEntry) }
    let processes = try FileDescriptor.open("/proc", [.readOnly, .directory])
    let entries = try processes.entries()
    var names: Set<ByteString> = []
    var seen: Set<ByteString> = []
    for entry in entries where entry.name.bytes.allSatisfy({ (0x30...0x39).contains($0) }) {
        // Most processes share a namespace: its table is read once.
        if let space = try? processes.readLink(at: entry.name + "/ns/mnt"), !seen.insert(space).inserted { continue }
        guard let table = try? processes.open(at: entry.name + "/mountinfo", .readOnly), let bytes = try? table.readAll(limit: 1 << 26)
        else { continue }
        for line in bytes.split(separator: UInt8(ascii: "\n")) {
            guard let mount = MountEntry(line: line), mount.source.hasPrefix(prefix) else { continue }
            names.insert(ByteString(mount.source.bytes.dropFirst(prefix.count)))
        }
    }
    return names
}
