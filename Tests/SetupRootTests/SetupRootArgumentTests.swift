import ComposefsBootFormats
import ComposefsBytes
import ComposefsHashing
import Testing

@testable import ComposefsSetupRoot

@Suite struct SetupRootArgumentTests {
    @Test func options() throws {
        let defaults = try SetupRootArguments([])
        #expect(
            defaults.sysroot == "/sysroot" && defaults.configuration == "/usr/lib/composefs/setup-root-conf.toml" && defaults.line == nil)
        for arguments in [
            ["--sysroot", "/new", "--config=/c.toml", "--cmdline", "a composefs=b c"],
            ["--cmdline=a composefs=b c", "--sysroot=/new", "--config", "/c.toml"],
        ] as [[ByteString]] {
            let options = try SetupRootArguments(arguments)
            #expect(options.sysroot == "/new" && options.configuration == "/c.toml" && options.line == "a composefs=b c", "\(arguments)")
        }
        #expect(try SetupRootArguments(["--cmdline", ""]).kernelArguments().arguments == [])
        #expect(try SetupRootArguments(["--help"]).answer?.hasPrefix("Usage: cfsoci-setup-root ") == true)
        #expect(try SetupRootArguments(["--version"]).answer?.hasPrefix("cfsoci-setup-root (cfsoci) ") == true)
    }

    @Test(
        arguments: [
            (["--sysroot"], "--sysroot needs a value"), (["--sysroot="], "--sysroot needs a value"),
            (["--config", ""], "--config needs a value"),
            (["--wrong"], "unknown option --wrong"), (["sysroot"], "unexpected argument sysroot"),
            (["--help=x"], "unknown option --help=x"),
            (["--sysroot", "/"], "--sysroot must not be /"), (["--sysroot", "//"], "--sysroot must not be /"),
        ] as [([ByteString], String)])
    func wrongUsage(arguments: [ByteString], message: String) {
        let error = #expect(throws: SetupRootArguments.Fault.self) { _ = try SetupRootArguments(arguments) }
        #expect(error?.description == message)
    }

    private static let hex = String(repeating: "0123456789abcdef", count: 8)

    @Test func imagesInTheirOrder() throws {
        let short = String(Self.hex.prefix(64))
        let line = "quiet composefs=\(Self.hex) rw composefs.digest=?v1-sha256-12:\(short)"
        let images = try SetupRoot.named(KernelCommandLine(parsing: line.utf8))
        #expect(images.map(\.description) == ["composefs=\(Self.hex)", "composefs.digest=?v1-sha256-12:\(short)"])
        #expect(images.map(\.allowsInsecure) == [false, true] && images.map(\.id.algorithm) == [.sha512, .sha256])
    }

    @Test(arguments: [
        ("", "no kernel argument composefs= or composefs.digest= names an image; `cfsoci boot karg IMAGE` prints it"),
        (
            "quiet composefsx=1 xcomposefs=2",
            "no kernel argument composefs= or composefs.digest= names an image; `cfsoci boot karg IMAGE` prints it"
        ),
        ("composefs=", "kernel argument composefs=: it has no value"), ("composefs", "kernel argument composefs=: it has no value"),
        (
            "composefs=12 composefs=" + SetupRootArgumentTests.hex,
            "kernel argument composefs=12: the digest is not 64 (sha256) or 128 (sha512) lower-case hexadecimal digits"
        ),
        (
            "composefs=\(SetupRootArgumentTests.hex) composefs.digest=v3-sha512-12:\(SetupRootArgumentTests.hex)",
            "kernel argument composefs.digest=v3-sha512-12:\(SetupRootArgumentTests.hex): only the formats v1 and v2 are known"
        ),
    ])
    func refusedLines(line: String, message: String) {
        let refusal = #expect(throws: Refusal.self) { _ = try SetupRoot.named(KernelCommandLine(parsing: line.utf8)) }
        #expect(refusal?.line == message)
    }

    @Test func plans() throws {
        let id = try #require(ObjectID(hex: Array(Self.hex.utf8)))
        let image = ComposefsArgument(id, .v1)
        var configuration = SetupRootConfiguration()
        let plan = RootPlan(image, configuration)
        #expect(plan.steps == [.image(id), .disk, .directory("etc", .overlay), .directory("var", .bind), .replacement])
        #expect(plan.deployment == ByteString("state/deploy/\(Self.hex)"))
        configuration.isRootTransient = true
        configuration.etc = .transient
        configuration.var = .none
        #expect(RootPlan(image, configuration).steps == [.image(id), .transientRoot, .disk, .replacement])
        configuration.etc = .overlay
        #expect(RootPlan(image, configuration).steps == [.image(id), .transientRoot, .disk, .directory("etc", .overlay), .replacement])
        configuration = SetupRootConfiguration()
        configuration.etc = .none
        configuration.var = .overlay
        #expect(RootPlan(image, configuration).steps == [.image(id), .disk, .directory("var", .overlay), .replacement])
    }
}
