import ComposefsBytes
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsRepository
import ComposefsTestSupport
import Glibc
import Testing

/// A repository that another user can change: nothing is written to it unless asked for, and nothing outside is ever touched.
@Suite(.serialized, .enabled(if: Host.effectiveUserID == 0, "needs root"))
struct OwnerTests {
    /// A repository with a stream that a reference leads to.
    private func sample(_ scratch: Scratch) throws {
        let repository = try scratch.create()
        var publication = Repository.Publication()
        let stream = try repository.storeStream()
        publication.stream("layer", stream.id)
        publication.streamReference("oci/tag", to: "layer")
        publication.image(try repository.storeImage(Array("no image".utf8)).id)
        try repository.publish(publication)
    }

    private func untrusted(_ body: () throws -> Void) -> (path: ByteString, fault: OwnershipFault)? {
        do {
            try body()
            return nil
        } catch RepositoryError.untrusted(let path, let fault) {
            return (path, fault)
        } catch {
            Issue.record("\(error)")
            return nil
        }
    }

    /// Everything that writes.
    private static let writes: [(name: String, body: @Sendable (Scratch, OpenOptions) throws -> Void)] = [
        ("store", { _ = try $0.open($1).store([1, 2, 3]) }),
        ("publish", { try $0.open($1).publish(Repository.Publication()) }),
        ("remove a reference", { _ = try $0.open($1).removeStreamReference("oci/tag") }),
        ("collect", { _ = try $0.open($1).collectGarbage() }),
        ("reset", { try Repository.resetMetadata($0.repository, trustsOwner: $1.trustsOwner) }),
    ]

    @Test(arguments: 0..<5) func nothingIsWrittenThere(_ index: Int) throws {
        let (name, write) = Self.writes[index]
        for location: ByteString in ["", "/meta.json", "/objects", "/streams", "/streams/refs", "/streams/refs/oci", "/images"] {
            for (mode, uid, fault) in [
                (UInt32(0o755), UInt32(65534), OwnershipFault.owner(65534)), (0o777, 0, .everyone),
            ] {
                let scratch = try Scratch()
                try sample(scratch)
                let path = scratch.repository + location
                try FileDescriptor.currentDirectory.changeOwner(at: path, uid: uid, gid: 0)
                try FileDescriptor.currentDirectory.changeMode(at: path, mode)
                let before = try scratch.listing()
                let found = untrusted { try write(scratch, OpenOptions()) }
                #expect(found?.path == path && found?.fault == fault, "\(name) \(location)")
                #expect(try scratch.listing() == before, "\(name) \(location)")
                // Reading continues to work.
                #expect(try scratch.open(OpenOptions(readOnly: true)).stream("layer") != nil)
                try write(scratch, OpenOptions(trustsOwner: true))
            }
        }
    }

    @Test func anObjectDirectoryOfAnotherUser() throws {
        let scratch = try Scratch()
        try sample(scratch)
        let objects = try scratch.directory().open(at: "objects", [.readOnly, .directory])
        let name = try #require(try objects.entries().first?.name)
        try objects.changeOwner(at: name, uid: 65534, gid: 65534)
        let found = untrusted { _ = try scratch.open().store([1]) }
        #expect(found?.path == scratch.repository + "/objects/" + name && found?.fault == .owner(65534))
    }

    /// Initializing is writing.
    @Test func aDirectoryOfAnotherUserIsNotInitialized() throws {
        let scratch = try Scratch()
        try FileDescriptor.makeDirectory(scratch.repository, mode: 0o755)
        try FileDescriptor.currentDirectory.changeOwner(at: scratch.repository, uid: 65534, gid: 65534)
        let configuration = RepositoryConfiguration(verity: .insecure)
        let found = untrusted { _ = try Repository.initialize(scratch.repository, configuration) }
        #expect(found?.path == scratch.repository && found?.fault == .owner(65534))
        #expect(try scratch.listing().isEmpty)
        _ = try Repository.initialize(scratch.repository, configuration, OpenOptions(trustsOwner: true))
    }

    /// A link in place of a directory is never followed, even if the owner is trusted.
    @Test(arguments: ["objects", "streams", "streams/refs", "images", "images/refs", ".staging"] as [ByteString], 0..<5)
    func plantedLinks(_ name: ByteString, _ index: Int) throws {
        let scratch = try Scratch()
        try sample(scratch)
        let root = try scratch.directory()
        let outside = scratch.path + "/outside"
        try FileDescriptor.makeDirectory(outside)
        let there = try FileDescriptor.open(outside, [.readOnly, .directory])
        for directory: ByteString in ["00", "oci", "refs", "refs/oci"] { try there.makeDirectory(at: directory) }
        for file: ByteString in ["tag", "layer", "oci/tag", "refs/oci/tag", "00/file"] {
            try there.open(at: file, [.writeOnly, .create], mode: 0o644).writeAll([1])
        }
        if try root.statusIfPresent(at: name) != nil { try root.rename(at: name, to: root, at: "moved") }
        try root.symlink(target: outside, at: name)
        let before = try there.names()
        let (what, write) = Self.writes[index]
        for trust in [false, true] {
            do {
                try write(scratch, OpenOptions(trustsOwner: trust))
                Issue.record("\(what) with \(name)")
            } catch RepositoryError.notDirectory(let path) {
                #expect(path == scratch.repository + "/" + name)
            }
        }
        #expect(try there.names() == before)
        // What only reads does not go there either.
        let reader = try scratch.open(OpenOptions(readOnly: true))
        _ = try? reader.streamReferences()
        _ = try? reader.image("layer")
        _ = try? reader.check()
        #expect(try there.names() == before)
    }

    /// A reference is a link; what is none is not removed.
    @Test func onlyLinksAreRemoved() throws {
        let scratch = try Scratch()
        try sample(scratch)
        try scratch.write("streams/refs/oci/file", [1])
        do {
            _ = try scratch.open().removeStreamReference("oci/file")
            Issue.record("removed")
        } catch RepositoryError.invalidLink(let path, _) {
            #expect(path == "streams/refs/oci/file")
        }
        #expect(try scratch.read("streams/refs/oci/file") == [1])
    }

    /// Whatever the umask allows, nothing is made that others can write to.
    @Test func permissions() throws {
        let old = umask(0)
        defer { umask(old) }
        let scratch = try Scratch()
        try sample(scratch)
        let repository = try scratch.open()
        var writer = try repository.makeObjectWriter()
        try writer.append([5, 6])
        _ = try writer.finish()
        let root = try scratch.directory()
        for (path, _) in try scratch.listing() {
            let status = try root.status(at: ByteString(path))
            switch status.kind {
            case .directory: #expect(status.permissions == 0o755, "\(path)")
            case .regular where path.hasPrefix("objects/"): #expect(status.permissions == 0o644, "\(path)")
            case .regular: #expect(status.permissions & 0o022 == 0, "\(path)")
            default: break
            }
        }
    }

    /// An object that another user could change is stored again.
    @Test func objectsOfOthersAreReplaced() throws {
        let scratch = try Scratch()
        let object = try scratch.create().store([1, 2, 3])
        let path = "objects/" + ByteString(object.id.objectPath)
        let root = try scratch.directory()
        for (uid, mode) in [(UInt32(65534), UInt32(0o644)), (0, 0o666)] {
            try root.changeOwner(at: path, uid: uid, gid: 0)
            try root.changeMode(at: path, mode)
            #expect(try scratch.open(OpenOptions(trustsOwner: true)).store([1, 2, 3]).isNew == false)
            #expect(try scratch.open().store([1, 2, 3]).isNew)
            let status = try root.status(at: path)
            #expect(status.uid == 0 && status.permissions == 0o644)
        }
    }
}

extension FileDescriptor {
    /// Everything below, by name.
    fileprivate borrowing func names() throws -> [String] {
        var all: [String] = []
        var pending: [ByteString] = ["."]
        while let next = pending.popLast() {
            for entry in try open(at: next, [.readOnly, .directory]).entries() {
                let path = next + "/" + entry.name
                all.append(path.description)
                if entry.kind == .directory { pending.append(path) }
            }
        }
        return all.sorted()
    }
}
