import ComposefsBytes
import ComposefsLinuxSystem
import ComposefsTestSupport
import Testing

@testable import ComposefsSetupRoot

@Suite struct SetupRootConfigurationTests {
    private func parse(_ text: String) throws -> SetupRootConfiguration {
        try SetupRootConfiguration(parsing: Array(text.utf8), name: "conf.toml")
    }

    /// The keys and values of composefs-rs: `[etc]` and `[var]` with `mount` and `transient`, `[root]` with `transient`.
    @Test(
        arguments: [
            ("", SetupRootConfiguration.Kind.overlay, SetupRootConfiguration.Kind.bind, false),
            ("[etc]\nmount = \"none\"\n[var]\nmount = 'overlay'", .none, .overlay, false),
            ("[etc]\nmount = \"bind\"\n[var]\nmount = \"transient\"", .bind, .transient, false),
            ("[etc]\ntransient = true\n[var]\ntransient = true\n[root]\ntransient = true", .transient, .transient, true),
            ("etc = { mount = \"bind\", transient = true }\nvar.transient = false", .bind, .bind, false),
            ("[root]\ntransient = false", .overlay, .bind, false),
        ] as [(String, SetupRootConfiguration.Kind, SetupRootConfiguration.Kind, Bool)])
    func keys(text: String, etc: SetupRootConfiguration.Kind, data: SetupRootConfiguration.Kind, isRootTransient: Bool) throws {
        let configuration = try parse(text)
        #expect(configuration.etc == etc && configuration.var == data && configuration.isRootTransient == isRootTransient)
        #expect(configuration.warnings.isEmpty)
    }

    @Test func unknownKeysAreWarnedOf() throws {
        let configuration = try parse("[etc]\nmont = \"none\"\nmount = \"none\"\n[root]\nmount = \"bind\"\n[\"new\\u001b\"]\nx = 1\n")
        #expect(configuration.etc == .none)
        #expect(
            configuration.warnings == [
                "conf.toml:2: the key etc.mont is unknown and has no effect",
                "conf.toml:5: the key root.mount is unknown and has no effect",
                "conf.toml:6: the key new  is unknown and has no effect",
            ])
    }

    @Test(arguments: [
        ("[etc\n", "conf.toml:1: ] is missing after a table's name, where the end of the line is"),
        ("\n[etc]\nmount = \"Bind\"", "conf.toml:3: etc.mount must be one of \"none\", \"bind\", \"overlay\", \"transient\""),
        ("[etc]\nmount = true", "conf.toml:2: etc.mount must be one of \"none\", \"bind\", \"overlay\", \"transient\""),
        ("[var]\ntransient = \"yes\"", "conf.toml:2: var.transient must be true or false"),
        // A wrong value is refused, even if another key makes it meaningless.
        ("[var]\nmount = \"bind\"\ntransient = 1", "conf.toml:3: var.transient must be true or false"),
        ("root = true", "conf.toml:1: root must be a table"),
    ])
    func mistakes(text: String, message: String) {
        let refusal = #expect(throws: Refusal.self) { _ = try parse(text) }
        #expect(refusal?.line == message)
    }

    @Test func files() throws {
        let folder = try TestFolder("setup-root-conf")
        #expect(try SetupRootConfiguration.read(at: folder.path + "/missing") == SetupRootConfiguration())
        let path = folder.path + "/conf.toml"
        try FileDescriptor.open(path, [.writeOnly, .create]).writeAll(Array("[var]\nmount = \"none\"\n".utf8))
        #expect(try SetupRootConfiguration.read(at: path).var == .none)
        #expect(throws: Refusal.self) { _ = try SetupRootConfiguration.read(at: folder.path) }
        // A FIFO that is never written to does not hold the boot up.
        try FileDescriptor.currentDirectory.makeNode(at: folder.path + "/fifo", mode: 0o010644)
        #expect(try SetupRootConfiguration.read(at: folder.path + "/fifo") == SetupRootConfiguration())
        try FileDescriptor.open(path, [.writeOnly]).truncate(to: UInt64(SetupRootConfiguration.configurationLimit) + 1)
        #expect(throws: Refusal.self) { _ = try SetupRootConfiguration.read(at: path) }
    }
}
