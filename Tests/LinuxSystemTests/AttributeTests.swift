import ComposefsBytes
import ComposefsLinuxSystem
import ComposefsTestSupport
import Testing

@Suite struct AttributeTests {
    @Test func userAttributes() throws {
        try withScratch { directory, _ in
            let file = try directory.open(at: "file", [.readWrite, .create])
            do {
                try file.setExtendedAttribute("user.b", ByteString([0, 1, 255]))
            } catch let error as SystemError where error.errno == .notSupported {
                try Test.cancel("the temporary directory does not support user xattrs")
            }
            let large = ByteString([UInt8](repeating: 9, count: 3000))
            try directory.setExtendedAttribute("user.a", large, at: "file")
            try file.setExtendedAttribute("user.empty", "")
            let expected = [
                FileDescriptor.ExtendedAttribute(name: "user.a", value: large),
                FileDescriptor.ExtendedAttribute(name: "user.b", value: ByteString([0, 1, 255])),
                FileDescriptor.ExtendedAttribute(name: "user.empty", value: ""),
            ]
            func ours(_ all: [FileDescriptor.ExtendedAttribute]) -> [FileDescriptor.ExtendedAttribute] {
                all.filter { $0.name.hasPrefix("user.") }
            }
            #expect(ours(try file.extendedAttributes()) == expected)
            #expect(ours(try directory.extendedAttributes(at: "file")) == expected)
            #expect(ours(try directory.open(at: "file", .pathOnly).extendedAttributes()) == expected)
            #expect(try file.extendedAttribute("user.empty") == "")
            #expect(try file.extendedAttribute("user.none") == nil)
            try file.removeExtendedAttribute("user.a")
            #expect(try directory.extendedAttribute("user.a", at: "file") == nil)
            #expect(failure { try file.removeExtendedAttribute("user.a") }?.errno == .noData)
            #expect(failure { try file.setExtendedAttribute(ByteString(Array("user.x\0y".utf8)), "") }?.errno == .invalidArgument)
            #expect(failure { _ = try directory.extendedAttributes(at: "none") }?.errno == .noEntry)
        }
    }

    @Test func symlinksHaveTheirOwn() throws {
        guard Host.effectiveUserID == 0, Host.hasCapability(.systemAdmin) else { try Test.cancel("trusted.* needs CAP_SYS_ADMIN") }
        try withScratch { directory, _ in
            _ = try directory.open(at: "file", [.writeOnly, .create])
            try directory.symlink(target: "file", at: "link")
            do {
                try directory.setExtendedAttribute("trusted.test", "on the link", at: "link")
            } catch let error as SystemError where error.errno == .notSupported {
                try Test.cancel("the temporary directory does not support trusted xattrs")
            }
            #expect(try directory.extendedAttribute("trusted.test", at: "file") == nil)
            #expect(try directory.extendedAttribute("trusted.test", at: "link") == "on the link")
            let link = try directory.open(at: "link", [.pathOnly, .noFollow])
            #expect(try link.status().kind == .symbolicLink)
            #expect(try link.extendedAttribute("trusted.test") == "on the link")
        }
    }

    /// If the kernel has fs-verity, the digest is compared with that of another implementation of the Merkle tree. Otherwise the error must
    /// say so.
    @Test func verity() throws {
        try withScratch { directory, _ in
            try directory.open(at: "file", [.writeOnly, .create]).writeAll(Array("hello world\n".utf8))
            let file = try directory.open(at: "file", .readOnly)
            do {
                #expect(try file.measureVerity() == nil)
                try file.enableVerity(algorithm: 1)
            } catch let error as SystemError where error.isUnsupported {
                try Test.cancel("no fs-verity: \(error)")
            }
            let measured = try #require(try file.measureVerity())
            #expect(measured.algorithm == 1)
            #expect(Hex.encode(measured.digest) == "37061ef2ac4c21bec68489b56138c5780306a4ad7fe6676236ecdf2c9027cd92")
            #expect(failure { try file.enableVerity(algorithm: 1) }?.errno == .exists)
            #expect(failure { _ = try directory.open(at: "file", .writeOnly) }?.errno == .notPermitted)
        }
    }
}
