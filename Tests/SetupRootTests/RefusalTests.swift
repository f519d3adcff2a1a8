import ComposefsBootFormats
import ComposefsBytes
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsMounting
import ComposefsRepository
import Testing

@testable import ComposefsSetupRoot

@Suite struct RefusalTests {
    private static let hex = String(repeating: "0123456789abcdef", count: 8)

    private func line(_ cause: Refusal.Cause, kernel: String) throws -> String {
        let id = try #require(ObjectID(hex: Array(Self.hex.utf8)))
        return Refusal(ComposefsArgument(id, .v1), cause, kernel: kernel).line
    }

    @Test func theArgumentIsNamed() throws {
        let id = try #require(ObjectID(hex: Array(Self.hex.utf8)))
        #expect(
            try line(.noDirectory("etc"), kernel: "6.12.1")
                == "composefs.digest=v1-sha512-12:\(Self.hex): the image has no directory /etc to mount the deployment's on")
        #expect(
            Refusal(ComposefsArgument(id, .v2, allowsInsecure: true), .repository(.verityLost("/sysroot/composefs"))).line
                .hasPrefix("composefs=?\(Self.hex): "))
        #expect(try line(.repository(.insecure("/sysroot/composefs")), kernel: "6.12.1").contains("a ? before the ID allows"))
    }

    /// The version explains a failure only if the feature is newer than it.
    @Test func kernelsThatAreTooOld() throws {
        let refused = SystemError("create", "overlay", .invalidArgument)
        for (cause, first, next) in [
            (MountError.overlayWithoutVerity, "6.6", "6.5.0-14-generic"), (.overlay(refused, kernel: ""), "6.5", "6.4.16"),
            (.noMountAPI, "5.2", "5.1.21"), (.noLoopDevice(refused), "6.12", "6.11.0-rc1"),
        ] {
            let old = try line(.mount(cause), kernel: next)
            #expect(old.contains("the kernel \(next) ") && old.contains("Linux \(first)"), "\(old)")
            #expect(try !line(.mount(cause), kernel: "7.0").contains("the kernel 7.0"), "\(cause)")
            #expect(try line(.mount(cause), kernel: "unknown").hasSuffix(cause.description), "\(cause)")
        }
        #expect(try line(.mount(.overlayWithoutVerity), kernel: "6.1.0-18-amd64").contains("the kernel 6.1.0-18-amd64 is too old"))
        #expect(try line(.mount(.noFileSystem("erofs")), kernel: "6.12.1").contains("add the module erofs to the initial RAM disk"))
    }

    @Test func versions() {
        #expect(KernelVersion("6.12.43+deb13-cloud-amd64") == KernelVersion(major: 6, minor: 12))
        #expect(KernelVersion("7.0-rc2") == KernelVersion(major: 7, minor: 0))
        #expect(KernelVersion("unknown") == nil && KernelVersion("6") == nil && KernelVersion("") == nil && KernelVersion("6.x") == nil)
        #expect(KernelVersion(major: 5, minor: 19) < KernelVersion(major: 6, minor: 1))
    }

    /// A record of the kernel's log is one line of at most 1,024 bytes.
    @Test func oneLine() {
        let long = Refusal("a\nb\u{1b}[31m" + String(repeating: "ä", count: 5000)).line
        #expect(long.unicodeScalars.allSatisfy { $0.value >= 0x20 } && long.hasPrefix("a b [31m"))
        #expect(long.utf8.count < 976)
    }
}
