import ArgumentParser
import ComposefsBytes
import ComposefsCommandSupport
import ComposefsJSON
import ComposefsLinuxSystem
import ComposefsOCI

struct Features: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "features", abstract: "Show what this host supports, and what is done without it.",
        discussion: """
            Each feature is tested in the directory and as the current user; nothing is left behind. A feature is unknown if it could not be \
            tested, usually because privileges are missing.
            """)

    @Argument(help: "A directory on the file system to test; by default that of the repository, existing or not.", completion: .directory)
    var path: ByteString?

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup var global: GlobalOptions

    func run() throws {
        let found = try probeFeatures(at: try path ?? Self.existing(try global.repositoryPath()))
        try FeatureReport(found: found, sandbox: global.usesSandbox ? Confinement.availability() : nil).show(asJSON: json)
    }

    /// The path, or the nearest directory above it that exists.
    private static func existing(_ path: ByteString) -> ByteString {
        var path = path
        while !isDirectory(path) {
            while path.bytes.count > 1, path.bytes.last == UInt8(ascii: "/") { path.bytes.removeLast() }
            guard let slash = path.bytes.lastIndex(of: UInt8(ascii: "/")) else { return "." }
            if slash == 0 { return "/" }
            path = ByteString(Array(path.bytes[..<slash]))
        }
        return path
    }

    private static func isDirectory(_ path: ByteString) -> Bool { (try? FileDescriptor.open(path, [.pathOnly, .directory])) != nil }
}

private struct FeatureReport: CommandReport {
    var found: HostFeatures
    /// What confines commands here; nil if that is switched off.
    var sandbox: Confinement.Availability?

    var lines: [String] {
        [
            "path        \(Output.printable(found.path))\(found.fileSystem.isEmpty ? "" : " (\(found.fileSystem))")",
            "kernel      \(found.kernelRelease)",
            "mounts      \(Self.describe(found.mounting)); with fs-verity: \(Self.describe(found.secureMounting)); "
                + "sandbox: \(sandbox?.description ?? "switched off")", "",
            table(
                ["FEATURE", "HERE", "DETAIL", "WITHOUT IT"],
                found.features.map {
                    [$0.title, $0.state.rawValue, $0.detail.isEmpty ? "-" : $0.detail, $0.state == .yes ? "-" : $0.without]
                }),
        ]
    }

    var json: JSONValue {
        let features = found.features.map { feature -> (key: String, value: JSONValue) in
            var members: [(key: String, value: JSONValue)] = [
                ("state", .string(feature.state.rawValue)), ("title", .string(feature.title)), ("detail", .string(feature.detail)),
                ("without", .string(feature.without)),
            ]
            for (key, flag) in feature.flags.sorted(by: { $0.key < $1.key }) { members.append((key, .bool(flag))) }
            for (key, number) in feature.numbers.sorted(by: { $0.key < $1.key }) { members.append((key, .integer(Int64(number)))) }
            return (feature.name, .object(JSONObject(members)))
        }
        return [
            "path": .string(found.path.jsonText), "fileSystem": .string(found.fileSystem.jsonText), "kernel": .string(found.kernelRelease),
            "mounting": .string(found.mounting.rawValue), "secureMounting": .string(found.secureMounting.rawValue),
            "sandbox": [
                "enabled": .bool(sandbox != nil), "noNewPrivileges": .bool(sandbox != nil), "capabilities": .bool(sandbox != nil),
                "landlock": .bool(sandbox?.landlock.isActive == true), "seccomp": .bool(sandbox?.filter.isActive == true),
            ], "features": .object(JSONObject(features)),
        ]
    }

    private static func describe(_ way: HostFeatures.Way) -> String {
        switch way {
        case .kernel: "by the kernel"
        case .fuse: "with FUSE"
        case .none: "not possible"
        }
    }
}
