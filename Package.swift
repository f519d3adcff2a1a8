// swift-tools-version: 6.2
import PackageDescription

// Settings of every target: Swift 6 mode, warnings are errors, imports are internal by default.
let settings: [SwiftSetting] = [
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableExperimentalFeature("Lifetimes"),
    .treatAllWarnings(as: .error),
]

/// The prefix of every target name. The rest of the name is that of the module's folder. SwiftPM requires unique target names in the whole
/// package graph of a program that depends on this package.
let prefix = "Composefs"

func ours(_ names: [String]) -> [Target.Dependency] { names.map { .target(name: prefix + $0) } }

func module(_ name: String, _ dependencies: [String] = [], products: [Target.Dependency] = [], path: String? = nil) -> Target {
    .target(
        name: prefix + name, dependencies: ours(dependencies) + products, path: path ?? "Sources/" + name,
        swiftSettings: settings)
}

func tests(_ name: String, _ dependencies: [String]) -> Target {
    .testTarget(
        name: prefix + name + "Tests", dependencies: ours([name] + dependencies), path: "Tests/" + name + "Tests", swiftSettings: settings)
}

/// A system library and its Debian package.
func library(_ name: String, pkgConfig: String, _ package: String) -> Target {
    .systemLibrary(name: prefix + name, path: "Sources/" + name, pkgConfig: pkgConfig, providers: [.apt([package])])
}

/// What `cfsoci version` prints: tools/package sets the variable. Anything but a hexadecimal number is left out.
let commit = Context.environment["CFSOCI_COMMIT"].flatMap { $0.allSatisfy(\.isHexDigit) && !$0.isEmpty ? $0 : nil }

let argumentParser: Target.Dependency = .product(name: "ArgumentParser", package: "swift-argument-parser")
let logging: Target.Dependency = .product(name: "Logging", package: "swift-log")

let package = Package(
    name: "cfsoci",
    products: [
        .library(name: "ComposefsOCI", targets: ["ComposefsOCI"]),
        .executable(name: "cfsoci", targets: ["ComposefsCommandLine"]),
        .executable(name: "cfsoci-setup-root", targets: ["ComposefsSetupRootProgram"]),
    ],
    dependencies: [
        // Argument parsing with help, completion and typo hints.
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.5.0"),
        // The Logger of Swift servers: with a type of our own, every program would need an adapter for the log that it has. Only the module OCI
        // imports it; the modules below call closures.
        .package(url: "https://github.com/apple/swift-log", from: "1.8.0"),
    ],
    targets: [
        // C: thin wrappers that return -errno, and system libraries.
        .target(name: prefix + "CLinux", path: "Sources/CLinux"),
        .target(
            name: prefix + "CVersion", path: "Sources/CVersion",
            cSettings: commit.map { [.define("CFSOCI_COMMIT", to: "\"\($0)\"")] } ?? []),
        // Hashes up to 16 blocks of a Merkle tree at a time with AVX-512, several times as fast as libcrypto, which has no function for that. Debian
        // has no library with one (isa-l_crypto is not packaged).
        .target(name: prefix + "CSHA2", path: "Sources/CSHA2"),
        library("COpenSSL", pkgConfig: "libcrypto", "libssl-dev"),
        library("CZstd", pkgConfig: "libzstd", "libzstd-dev"),
        // Deflate for pushed layers. ISA-L is faster, but its output depends on the processor, and digests must not.
        library("CZlib", pkgConfig: "zlib", "zlib1g-dev"),
        library("CISAL", pkgConfig: "libisal", "libisal-dev"),
        // Headers of libcurl4-openssl-dev only: libcurl is loaded when the network is first used.
        .target(name: prefix + "CCurl", path: "Sources/CCurl"),
        // SELinux file contexts are PCRE2 patterns, which libselinux matches with PCRE2. Any other engine would give some file another label, and
        // so the image another ID.
        library("CPCRE2", pkgConfig: "libpcre2-8", "libpcre2-dev"),

        // Level 0: bytes.
        module("Bytes"),
        // Level 1: no formats of this project. Concurrency starts threads, so it is above LinuxSystem.
        module("Hashing", ["Bytes", "COpenSSL", "CISAL", "CSHA2"]),
        module("Compression", ["Bytes", "CISAL", "CZlib", "CZstd"]),
        module("JSON", ["Bytes"]),
        // registries.conf and the configuration of cfsoci-setup-root are TOML: toml++ 3.3, the only suitable C or C++ library in Debian, fails its
        // own assertions after seconds of fuzzing, and the Swift packages depend on Foundation.
        module("TOML", ["Bytes"]),
        module("LinuxSystem", ["Bytes", "CLinux"]),
        module("Concurrency", ["LinuxSystem", "CLinux"]),
        // What a process gives up before it parses bytes of others. Programs ask for it; no other module does.
        module("Confinement", ["Bytes", "LinuxSystem"]),
        // Level 2: pure formats, bytes in, values out.
        module("Varlink", ["Bytes", "JSON"]),
        module("FileTree", ["Bytes", "Hashing"]),
        module("Tar", ["Bytes"]),
        module("SplitStream", ["Bytes", "Hashing", "Compression"]),
        module("OCIModel", ["Bytes", "Hashing", "Compression", "JSON"]),
        // Level 3: pure formats of a tree, and of what a machine boots; which images a machine accepts.
        module("SignaturePolicy", ["Bytes", "Hashing", "JSON", "OCIModel"]),
        module("EROFS", ["Bytes", "Hashing", "FileTree"]),
        module("Dumpfile", ["Bytes", "Hashing", "FileTree"]),
        module("BootFormats", ["Bytes", "Hashing"]),
        module("Ext4", ["Bytes", "Hashing", "FileTree"]),
        module("SnapshotFormat", ["Bytes", "Hashing", "JSON"]),
        // Level 4: Repository knows no OCI. Transports knows no store and no HTTP. HTTPClient, the only user of libcurl, knows no registry. Mounting
        // knows no repository; it reports what is mounted, which garbage collection needs.
        module("Mounting", ["Bytes", "Hashing", "LinuxSystem", "Concurrency"]),
        module(
            "Repository",
            ["Bytes", "Hashing", "LinuxSystem", "Concurrency", "JSON", "FileTree", "SplitStream", "EROFS", "BootFormats", "Mounting"]),
        module(
            "Transports",
            ["Bytes", "Hashing", "Compression", "LinuxSystem", "Concurrency", "JSON", "Tar", "OCIModel", "SignaturePolicy"]),
        module("HTTPClient", ["Bytes", "Compression", "LinuxSystem", "Concurrency", "CCurl"]),
        // Level 5, too: the program for early boot, which knows no OCI and no network.
        module("SetupRoot", ["Bytes", "Hashing", "LinuxSystem", "TOML", "BootFormats", "Mounting", "Repository", "CVersion"]),
        .executableTarget(
            name: prefix + "SetupRootProgram", dependencies: ours(["LinuxSystem", "SetupRoot"]), path: "Sources/cfsoci-setup-root",
            swiftSettings: settings),
        // Level 5: OCI images in a repository, from any source; the distribution protocol, for any use of the bytes.
        module(
            "ImageStore",
            [
                "Bytes", "Hashing", "Compression", "LinuxSystem", "Concurrency", "JSON", "FileTree", "Tar", "SplitStream", "EROFS",
                "Dumpfile",
                "OCIModel", "Repository",
            ]),
        module(
            "Registry",
            [
                "Bytes", "Hashing", "Compression", "LinuxSystem", "Concurrency", "JSON", "TOML", "OCIModel", "SignaturePolicy",
                "HTTPClient",
                "Transports",
            ]),
        // Level 6: boot images; FUSE.
        module(
            "Boot",
            [
                "Bytes", "Hashing", "JSON", "LinuxSystem", "FileTree", "BootFormats", "EROFS", "OCIModel", "Repository", "ImageStore",
                "CPCRE2",
            ]),
        module("Fuse", ["Bytes", "Hashing", "LinuxSystem", "Concurrency", "FileTree", "EROFS"]),
        // Level 6, too: what virtual machines boot.
        module(
            "Disks",
            [
                "Bytes", "Hashing", "JSON", "LinuxSystem", "Concurrency", "FileTree", "SplitStream", "EROFS", "Ext4", "SnapshotFormat",
                "OCIModel", "Repository", "ImageStore",
            ]),
        // Level 6, too: the files of images in directories and archives.
        module("Extraction", ["Bytes", "Hashing", "LinuxSystem", "Concurrency", "FileTree", "EROFS", "Repository", "ImageStore"]),
        // Level 7: pull, push, copy. Above Boot, because a copy creates boot images again, and Disks, which a pull makes while layers arrive.
        module(
            "Transfer",
            [
                "Bytes", "Hashing", "Compression", "LinuxSystem", "Concurrency", "JSON", "FileTree", "Tar", "SplitStream", "EROFS",
                "OCIModel", "SignaturePolicy", "Repository", "Transports", "ImageStore", "Boot", "Disks",
            ]),
        // Level 8: one import for Swift programs.
        module(
            "OCI",
            [
                "Bytes", "Hashing", "Compression", "LinuxSystem", "Concurrency", "JSON", "FileTree", "Tar", "SplitStream", "EROFS",
                "Dumpfile",
                "OCIModel", "SignaturePolicy", "BootFormats", "Repository", "HTTPClient", "Transports", "ImageStore", "Boot", "Disks",
                "Ext4",
                "SnapshotFormat", "Extraction", "Transfer",
                "Registry", "Mounting", "Fuse", "Confinement",
            ], products: [logging], path: "Sources/ComposefsOCI"),
        // Level 9: what other programs call, and the command: both are for programs, not for Swift code. The service is a module of its own, so that
        // tests run it in their process.
        module(
            "VarlinkService",
            [
                "Bytes", "Hashing", "LinuxSystem", "Concurrency", "JSON", "OCIModel", "Mounting", "Repository", "Transports", "ImageStore",
                "Transfer", "OCI", "Varlink",
            ]),
        // The command. CommandSupport has what subcommands share: options, output, progress. Groups of
        // subcommands that are large enough have modules of their own.
        module(
            "CommandSupport",
            ["Bytes", "Hashing", "Compression", "LinuxSystem", "Concurrency", "Confinement", "JSON", "FileTree", "OCI", "CVersion"],
            products: [argumentParser]),
        module(
            "LowLevelCommands", ["Bytes", "Hashing", "JSON", "LinuxSystem", "FileTree", "OCI", "CommandSupport"],
            products: [argumentParser]),
        module("BootCommands", ["Bytes", "Confinement", "LinuxSystem", "JSON", "OCI", "CommandSupport"], products: [argumentParser]),
        module(
            "ArchiveCommands", ["Bytes", "Hashing", "LinuxSystem", "JSON", "FileTree", "OCI", "CommandSupport"], products: [argumentParser]),
        module("ToolCommands", ["Bytes", "Confinement", "Hashing", "LinuxSystem", "FileTree", "Dumpfile", "OCI", "CommandSupport"]),
        module("DiskCommands", ["Bytes", "Hashing", "LinuxSystem", "JSON", "OCI", "CommandSupport"], products: [argumentParser]),
        module(
            "ServiceCommands", ["Bytes", "LinuxSystem", "Concurrency", "OCI", "Varlink", "VarlinkService", "CommandSupport"],
            products: [argumentParser]),
        module(
            "Commands",
            [
                "Bytes", "Hashing", "Compression", "LinuxSystem", "Concurrency", "JSON", "FileTree", "OCI", "CommandSupport",
                "LowLevelCommands", "BootCommands", "DiskCommands", "ArchiveCommands", "ToolCommands", "ServiceCommands",
            ],
            products: [argumentParser]),
        .executableTarget(
            name: prefix + "CommandLine", dependencies: ours(["Commands"]), path: "Sources/cfsoci", swiftSettings: settings),

        .target(
            name: prefix + "TestSupport", dependencies: ours(["Bytes", "LinuxSystem", "Concurrency"]), path: "Tests/TestSupport",
            swiftSettings: settings),
        tests("Bytes", ["TestSupport"]),
        tests("Hashing", ["Bytes"]),
        tests("Compression", ["Bytes"]),
        tests("LinuxSystem", ["Bytes", "Concurrency", "TestSupport"]),
        tests("Concurrency", ["Bytes", "LinuxSystem"]),
        tests("Confinement", ["Bytes", "LinuxSystem", "TestSupport"]),
        tests("JSON", []),
        tests("TOML", []),
        tests("Varlink", ["Bytes", "JSON"]),
        tests(
            "VarlinkService",
            [
                "Bytes", "Hashing", "JSON", "LinuxSystem", "Concurrency", "Varlink", "Repository", "ImageStore", "Transfer", "Transports",
                "OCI", "TestSupport",
            ]),
        tests("FileTree", ["Bytes", "TestSupport"]),
        tests("Tar", ["Bytes"]),
        tests("SplitStream", ["Bytes", "Hashing", "Compression"]),
        tests("EROFS", ["Bytes", "Hashing", "FileTree", "Dumpfile", "TestSupport"]),
        tests("Dumpfile", ["Bytes", "Hashing", "FileTree"]),
        tests("BootFormats", ["Bytes", "Hashing", "TestSupport"]),
        tests("SnapshotFormat", ["Bytes", "Hashing", "JSON", "TestSupport"]),
        tests("Ext4", ["Bytes", "Hashing", "FileTree", "LinuxSystem", "TestSupport"]),
        tests("OCIModel", ["Hashing", "Compression", "JSON", "Transports", "ImageStore", "Transfer"]),
        tests("SignaturePolicy", ["Bytes", "Hashing", "OCIModel", "TestSupport"]),
        tests("Repository", ["Bytes", "Hashing", "LinuxSystem", "Concurrency", "JSON", "FileTree", "SplitStream", "EROFS", "TestSupport"]),
        tests(
            "Transports",
            ["Bytes", "Hashing", "Compression", "LinuxSystem", "Concurrency", "JSON", "OCIModel", "ImageStore", "Transfer", "TestSupport"]),
        tests("HTTPClient", ["Bytes", "Compression", "LinuxSystem", "Concurrency", "TestSupport"]),
        tests("ImageStore", ["Bytes", "Hashing", "FileTree", "Tar", "Dumpfile", "OCIModel", "Transports", "Transfer", "TestSupport"]),
        tests(
            "Registry",
            [
                "Bytes", "Hashing", "Compression", "LinuxSystem", "Concurrency", "JSON", "OCIModel", "SignaturePolicy", "HTTPClient",
                "Repository", "Transports", "ImageStore", "Boot", "Transfer", "TestSupport",
            ]),
        tests(
            "Boot",
            [
                "Bytes", "Hashing", "LinuxSystem", "FileTree", "BootFormats", "EROFS", "Dumpfile", "Repository", "Transports", "ImageStore",
                "Transfer", "TestSupport",
            ]),
        tests(
            "SetupRoot",
            [
                "Bytes", "Hashing", "LinuxSystem", "FileTree", "EROFS", "BootFormats", "Mounting", "Repository", "SetupRootProgram",
                "TestSupport",
            ]),
        tests("Mounting", ["Bytes", "LinuxSystem", "TestSupport"]),
        tests("Fuse", ["Bytes", "Hashing", "LinuxSystem", "Concurrency", "FileTree", "EROFS"]),
        tests(
            "Disks",
            [
                "Bytes", "Hashing", "LinuxSystem", "FileTree", "SplitStream", "EROFS", "Ext4", "SnapshotFormat", "OCIModel", "Repository",
                "Transports", "ImageStore", "Transfer", "TestSupport",
            ]),
        tests(
            "Transfer",
            [
                "Bytes", "Hashing", "Compression", "LinuxSystem", "Concurrency", "FileTree", "SplitStream", "Dumpfile", "EROFS", "OCIModel",
                "Repository", "Transports", "ImageStore", "Boot", "TestSupport",
            ]),
        .testTarget(
            name: "ComposefsOCITests",
            dependencies: ours(["OCI", "Bytes", "Hashing", "LinuxSystem", "TestSupport"])
                + [logging, .product(name: "InMemoryLogging", package: "swift-log")],
            path: "Tests/ComposefsOCITests", swiftSettings: settings),
        .testTarget(
            name: prefix + "CommandTests",
            dependencies: ours([
                "Bytes", "Hashing", "JSON", "LinuxSystem", "Confinement", "FileTree", "Dumpfile", "OCI", "CommandSupport",
                "LowLevelCommands", "ToolCommands", "Commands", "CommandLine", "TestSupport",
            ]) + [argumentParser], path: "Tests/CommandTests",
            swiftSettings: settings),
    ],
    swiftLanguageModes: [.v6]
)

// CFSOCI_TESTS=Repository,Transfer builds only these test targets, for faster development.
if let chosen = Context.environment["CFSOCI_TESTS"]?.split(separator: ",").map(String.init) {
    package.targets.removeAll { target in
        target.type == .test && !chosen.contains { target.name == prefix + $0 + "Tests" }
    }
}

// The plugin that makes a web site of the documentation: only `CFSOCI_DOCC=1 swift package generate-documentation` fetches it.
if Context.environment["CFSOCI_DOCC"] != nil {
    package.dependencies.append(.package(url: "https://github.com/swiftlang/swift-docc-plugin", from: "1.4.0"))
}

// The fuzzers, which only `tools/fuzz` builds: it sets the variable. There is one program per format; libFuzzer provides `main`.
if Context.environment["CFSOCI_FUZZ"] != nil {
    let fuzzers: [String: [String]] = [
        "FuzzAuth": ["FuzzSupport", "Registry"],
        "FuzzBootFormats": ["BootFormats", "Hashing"],
        "FuzzCompression": ["Compression"],
        "FuzzDumpfile": ["Dumpfile", "EROFS", "FileTree"],
        "FuzzErofs": ["Dumpfile", "EROFS", "FileTree"],
        "FuzzFuse": ["EROFS", "FileTree", "Fuse", "FuzzSupport", "Hashing", "LinuxSystem"],
        "FuzzHTTP": ["FuzzSupport", "HTTPClient", "Hashing", "OCIModel", "Registry", "Transports"],
        "FuzzExt4": ["Dumpfile", "Ext4", "FileTree"],
        "FuzzJSON": ["JSON"],
        "FuzzLayout": ["FuzzSupport", "Hashing", "ImageStore", "OCIModel", "Repository", "Transfer", "Transports"],
        "FuzzManifest": ["OCIModel"],
        "FuzzMetadata": ["Repository"],
        "FuzzReference": ["OCIModel", "Transports"],
        "FuzzRegistries": ["Registry"],
        "FuzzRepository": [
            "Dumpfile", "FuzzSupport", "Hashing", "ImageStore", "LinuxSystem", "OCIModel", "Repository", "Transfer", "Transports",
        ],
        "FuzzSetupRoot": ["SetupRoot", "TOML"],
        "FuzzSignaturePolicy": ["Hashing", "OCIModel", "SignaturePolicy"],
        "FuzzSnapshot": ["JSON", "SnapshotFormat"],
        "FuzzSplitStream": ["Compression", "Hashing", "SplitStream"],
        "FuzzTar": ["Tar"],
        "FuzzVarlink": ["JSON", "Varlink"],
    ]
    package.targets.append(
        .target(
            name: prefix + "FuzzSupport", dependencies: ours(["Bytes", "Compression", "Hashing", "LinuxSystem"]),
            path: "Tests/Fuzz/Support",
            swiftSettings: settings))
    package.targets += fuzzers.map { name, dependencies in
        .executableTarget(
            name: prefix + name, dependencies: ours(["Bytes"] + dependencies), path: "Tests/Fuzz/Fuzz/" + name,
            swiftSettings: settings + [.unsafeFlags(["-parse-as-library"])])
    }
    package.products += fuzzers.keys.map { .executable(name: $0, targets: [prefix + $0]) }
}
