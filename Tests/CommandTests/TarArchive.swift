/// A member of a test's archive.
struct TarMember {
    var name: String
    var mode = 0o644
    var uid = 0
    var gid = 0
    var mtime = 1_234_567_890
    /// The type flag: "0" file, "1" hard link, "2" symlink, "5" directory.
    var type: Character = "0"
    var link = ""
    var content: [UInt8] = []
}

/// A ustar archive, written without the project's own code.
func tarArchive(_ members: [TarMember]) -> [UInt8] {
    var archive: [UInt8] = []
    for member in members {
        var header = [UInt8](repeating: 0, count: 512)
        func put(_ text: String, _ offset: Int) { for (index, byte) in text.utf8.enumerated() { header[offset + index] = byte } }
        func octal(_ value: Int, _ width: Int) -> String {
            let digits = String(value, radix: 8)
            return String(repeating: "0", count: width - digits.count) + digits
        }
        put(member.name, 0)
        put(octal(member.mode, 7), 100)
        put(octal(member.uid, 7), 108)
        put(octal(member.gid, 7), 116)
        put(octal(member.content.count, 11), 124)
        put(octal(member.mtime, 11), 136)
        put("        ", 148)
        put(String(member.type), 156)
        put(member.link, 157)
        put("ustar\0" + "00", 257)
        put(octal(header.reduce(0) { $0 + Int($1) }, 6) + "\0 ", 148)
        archive += header + member.content
        archive += [UInt8](repeating: 0, count: (512 - member.content.count % 512) % 512)
    }
    archive += [UInt8](repeating: 0, count: 1024)
    return archive
}

/// Seconds on the monotonic clock.
func now() -> Double {
    let time = ContinuousClock.now.duration(to: origin)
    return -(Double(time.components.seconds) + Double(time.components.attoseconds) / 1e18)
}

private let origin = ContinuousClock.now
