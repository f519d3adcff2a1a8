import ComposefsJSON
import Glibc
import Testing

/// One changed byte, anywhere: the pull refuses it, or `fsck` names the file and exits 2.
@Suite struct DamageTests {
    private func flip(_ path: String, at offset: Int) throws {
        var bytes = try readFile(path)
        guard offset < bytes.count else { return }
        bytes[offset] ^= 0x01
        // Replace the file: the old one may be shared, or protected by fs-verity.
        unlink(path)
        try writeFile(path, bytes)
    }

    private func positions(_ count: Int) -> [Int] {
        count == 0 ? [] : Array(Set([0, 1, count / 3, count / 2, count - 2, count - 1].filter { $0 >= 0 && $0 < count })).sorted()
    }

    @Test func everyFileOfALayout() throws {
        let folder = try TemporaryFolder()
        let layout = folder.path + "/layout"
        try LayoutBuilder.small().write(to: layout)
        let blobs = fileList(layout).filter { $0.hasPrefix("blobs/sha256/") }
        #expect(blobs.count == 4)
        for blob in blobs {
            let path = layout + "/" + blob
            let original = try readFile(path)
            for offset in positions(original.count) {
                // Use a new store each time: one with the layer does not read the blob.
                let store = try TemporaryFolder()
                let repository = store.path + "/repo"
                try Cfsoci.succeed(["init", repository, "--insecure"])
                try flip(path, at: offset)
                let result = try Cfsoci.run(["pull", "oci:" + layout, "t", "--repo", repository])
                #expect(result.status == 1, "\(blob) byte \(offset): \(result.text)")
                #expect(result.error.contains(String(blob.dropFirst("blobs/sha256/".count).prefix(12))), "\(result.error)")
                #expect(try Cfsoci.succeed(["images", "--json", "--repo", repository]).json()["images"]?.array?.isEmpty == true)
                #expect(try Cfsoci.run(["fsck", "--repo", repository]).status == 0)
                try writeFile(path, original)
            }
        }
        let repository = folder.path + "/repo"
        try Cfsoci.succeed(["init", repository, "--insecure"])
        // The layout is intact again, and so is the store.
        try Cfsoci.succeed(["pull", "oci:" + layout, "t", "--repo", repository])
        #expect(try Cfsoci.run(["fsck", "--repo", repository]).status == 0)
    }

    @Test func everyFileOfARepository() throws {
        let folder = try TemporaryFolder()
        let layout = folder.path + "/layout"
        try LayoutBuilder.small().write(to: layout)
        let repository = folder.path + "/repo"
        try Cfsoci.succeed(["init", repository, "--insecure"])
        try Cfsoci.succeed(["pull", "oci:" + layout, "t", "--repo", repository])
        #expect(try Cfsoci.run(["fsck", "--repo", repository]).status == 0)
        var files = 0
        for name in fileList(repository) {
            let path = repository + "/" + name
            var status = stat()
            guard lstat(path, &status) == 0 else { continue }
            switch status.st_mode & S_IFMT {
            case S_IFREG:
                files += 1
                let original = try readFile(path)
                for offset in positions(original.count) {
                    try flip(path, at: offset)
                    let result = try Cfsoci.run(["fsck", "--repo", repository])
                    #expect(result.status == 2, "\(name) byte \(offset): \(result.text)\(result.error)")
                    #expect((result.text + result.error).contains(name), "\(name) byte \(offset): \(result.text)\(result.error)")
                    unlink(path)
                    try writeFile(path, original)
                }
                // Truncated and extended.
                for bytes in [Array(original.dropLast()), original + [0]] {
                    unlink(path)
                    try writeFile(path, bytes)
                    let result = try Cfsoci.run(["fsck", "--repo", repository])
                    #expect(result.status == 2, "\(name) with \(bytes.count) bytes: \(result.text)\(result.error)")
                }
                unlink(path)
                try writeFile(path, original)
            case S_IFLNK:
                files += 1
                var buffer = [CChar](repeating: 0, count: 4096)
                let count = readlink(path, &buffer, buffer.count)
                let target = buffer.prefix(count).map { UInt8(bitPattern: $0) }
                // The last digit of the digest is changed, so the name is still well-formed.
                var other = target
                other[other.count - 1] = other[other.count - 1] == UInt8(ascii: "0") ? UInt8(ascii: "1") : UInt8(ascii: "0")
                unlink(path)
                symlink(String(decoding: other, as: UTF8.self), path)
                let result = try Cfsoci.run(["fsck", "--repo", repository])
                #expect(result.status == 2, "link \(name): \(result.text)\(result.error)")
                #expect((result.text + result.error).contains(name), "link \(name): \(result.text)\(result.error)")
                unlink(path)
                symlink(String(decoding: target, as: UTF8.self), path)
            default: continue
            }
        }
        #expect(files > 15)
        #expect(try Cfsoci.run(["fsck", "--deep", "--repo", repository]).status == 0)
    }
}
