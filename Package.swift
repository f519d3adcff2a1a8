// swift-tools-version: 6.2
import PackageDescription

// Every target of ours: Swift 6 mode, warnings are errors, imports are internal unless said otherwise.
let settings: [SwiftSetting] = [
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableExperimentalFeature("Lifetimes"),
    .treatAllWarnings(as: .error),
]

/// What every target of ours is called: a module's folder with a prefix, since SwiftPM wants target names to be unique in the whole package
/// graph of whoever depends on this package.
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

/// A system library, by Debian's package.
func library(_ name: String, pkgConfig: String, _ package: String) -> Target {
    .systemLibrary(name: prefix + name, path: "Sources/" + name, pkgConfig: pkgConfig, providers: [.apt([package])])
}

let argumentParser: Target.Dependency = .product(name: "ArgumentParser", package: "swift-argument-parser")

let package = Package(
    name: "cfsoci",
    products: [
        .library(name: "ComposefsOCI", targets: ["ComposefsOCI"]),
        .executable(name: "cfsoci", targets: ["ComposefsCommandLine"]),
    ],
    dependencies: [
        // Argument parsing with help, completion and typo hints: the field's standard, and nothing a store should reinvent.
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.5.0")
    ],
    targets: [
        // C: thin shims returning -errno, and system libraries.
        .target(name: prefix + "CLinux", path: "Sources/CLinux"),
        library("COpenSSL", pkgConfig: "libcrypto", "libssl-dev"),
        library("CZstd", pkgConfig: "libzstd", "libzstd-dev"),
        // Deflate for layers that are pushed: ISA-L is faster, but what it makes depends on the processor, and digests must not.
        library("CZlib", pkgConfig: "zlib", "zlib1g-dev"),
        library("CISAL", pkgConfig: "libisal", "libisal-dev"),
        library("CCurl", pkgConfig: "libcurl", "libcurl4-openssl-dev"),
        // SELinux file contexts are PCRE2 patterns, and libselinux matches them with PCRE2: any other engine, ours most of all, would give
        // some file another label and so the image another identifier.
        library("CPCRE2", pkgConfig: "libpcre2-8", "libpcre2-dev"),

        // Floor 0: bytes.
        module("Bytes"),
        // Floor 1: know no format of ours. Threads are started through the system, so Concurrency stands on LinuxSystem.
        module("Hashing", ["Bytes", "COpenSSL"]),
        module("Compression", ["Bytes", "CISAL", "CZlib", "CZstd"]),
        module("JSON", ["Bytes"]),
        module("LinuxSystem", ["Bytes", "CLinux"]),
        module("Concurrency", ["LinuxSystem", "CLinux"]),
        // Floor 2: pure formats, bytes in, values out.
        module("FileTree", ["Bytes", "Hashing"]),
        module("Tar", ["Bytes"]),
        module("SplitStream", ["Bytes", "Hashing", "Compression"]),
        module("OCIModel", ["Bytes", "Hashing", "Compression", "JSON"]),
        // Floor 3: pure formats of a tree.
        module("EROFS", ["Bytes", "Hashing", "FileTree"]),
        module("Dumpfile", ["Bytes", "Hashing", "FileTree"]),
        // Floor 4: the repository knows no OCI, transports know no store and no HTTP, and HTTPClient, the only user of libcurl, knows no registry.
        // Mounting knows no repository, only what is mounted: a collection must know that.
        module("Mounting", ["Bytes", "LinuxSystem", "Concurrency"]),
        module(
            "Repository", ["Bytes", "Hashing", "LinuxSystem", "Concurrency", "JSON", "FileTree", "SplitStream", "EROFS", "Mounting"]),
        module("Transports", ["Bytes", "Hashing", "Compression", "LinuxSystem", "Concurrency", "JSON", "Tar", "OCIModel"]),
        module("HTTPClient", ["Bytes", "Compression", "LinuxSystem", "Concurrency", "CCurl"]),
        // Floor 5: OCI images in a repository, whatever they come from; the distribution protocol, whatever becomes of the bytes.
        module(
            "ImageStore",
            [
                "Bytes", "Hashing", "Compression", "LinuxSystem", "Concurrency", "JSON", "FileTree", "Tar", "SplitStream", "EROFS",
                "Dumpfile",
                "OCIModel", "Repository",
            ]),
        // registries.conf is TOML, read by a parser of our own: toml++ 3.3, the one that Debian has in C or C++ without more, fails its own
        // assertions after seconds of fuzzing, and the Swift packages bring Foundation.
        module(
            "Registry", ["Bytes", "Hashing", "Compression", "LinuxSystem", "Concurrency", "JSON", "OCIModel", "HTTPClient", "Transports"]),
        // Floor 6: the tree that boots; FUSE.
        module("Boot", ["Bytes", "Hashing", "LinuxSystem", "FileTree", "OCIModel", "Repository", "ImageStore", "CPCRE2"]),
        module("Fuse", ["Bytes", "Hashing", "LinuxSystem", "Concurrency", "FileTree", "EROFS"]),
        // Floor 7: images on their way: pull, push, copy. Above Boot, since a copy makes boot images anew.
        module(
            "Transfer",
            [
                "Bytes", "Hashing", "Compression", "LinuxSystem", "Concurrency", "JSON", "FileTree", "Tar", "SplitStream", "EROFS",
                "OCIModel", "Repository", "Transports", "ImageStore", "Boot",
            ]),
        // Floor 8: one import for Swift programs.
        module(
            "OCI",
            [
                "Bytes", "Hashing", "Compression", "LinuxSystem", "Concurrency", "JSON", "FileTree", "Tar", "SplitStream", "EROFS",
                "Dumpfile",
                "OCIModel", "Repository", "HTTPClient", "Transports", "ImageStore", "Boot", "Transfer", "Registry", "Mounting", "Fuse",
            ], path: "Sources/ComposefsOCI"),
        // Floor 9: the command. What its subcommands share (options, output, progress) is a module of its own.
        module(
            "CommandSupport",
            ["Bytes", "Hashing", "Compression", "LinuxSystem", "Concurrency", "JSON", "FileTree", "OCI"], products: [argumentParser]),
        module(
            "Commands",
            ["Bytes", "Hashing", "Compression", "LinuxSystem", "Concurrency", "JSON", "FileTree", "OCI", "CommandSupport"],
            products: [argumentParser]),
        .executableTarget(
            name: prefix + "CommandLine", dependencies: ours(["Commands"]), path: "Sources/cfsoci", swiftSettings: settings),

        .target(
            name: prefix + "TestSupport", dependencies: ours(["Bytes", "LinuxSystem", "Concurrency"]), path: "Tests/TestSupport",
            swiftSettings: settings),
        tests("Bytes", []),
        tests("Hashing", []),
        tests("Compression", ["Bytes"]),
        tests("LinuxSystem", ["Bytes", "Concurrency", "TestSupport"]),
        tests("Concurrency", ["Bytes", "LinuxSystem"]),
        tests("JSON", []),
        tests("FileTree", ["Bytes"]),
        tests("Tar", ["Bytes"]),
        tests("SplitStream", ["Bytes", "Hashing", "Compression"]),
        tests("EROFS", ["Bytes", "Hashing", "FileTree", "Dumpfile"]),
        tests("Dumpfile", ["Bytes", "Hashing", "FileTree"]),
        tests("OCIModel", ["Hashing", "Compression", "JSON", "Transports", "ImageStore", "Transfer"]),
        tests("Repository", ["Bytes", "Hashing", "LinuxSystem", "Concurrency", "JSON", "FileTree", "SplitStream", "EROFS", "TestSupport"]),
        tests(
            "Transports",
            ["Bytes", "Hashing", "Compression", "LinuxSystem", "Concurrency", "JSON", "OCIModel", "ImageStore", "Transfer", "TestSupport"]),
        tests("HTTPClient", ["Compression", "LinuxSystem", "Concurrency", "TestSupport"]),
        tests("ImageStore", ["Bytes", "Hashing", "FileTree", "Tar", "Dumpfile", "OCIModel", "Transports", "Transfer"]),
        tests(
            "Registry",
            [
                "Bytes", "Hashing", "Compression", "LinuxSystem", "Concurrency", "JSON", "OCIModel", "HTTPClient", "Repository",
                "Transports", "ImageStore", "Boot", "Transfer", "TestSupport",
            ]),
        tests("Boot", ["Bytes", "Hashing", "FileTree", "Transports", "ImageStore", "Transfer"]),
        tests("Mounting", ["Bytes", "LinuxSystem", "TestSupport"]),
        tests("Fuse", ["Bytes", "Hashing", "LinuxSystem", "Concurrency", "FileTree", "EROFS"]),
        tests(
            "Transfer",
            [
                "Bytes", "Hashing", "Compression", "LinuxSystem", "Concurrency", "FileTree", "SplitStream", "Dumpfile", "EROFS", "OCIModel",
                "Repository", "Transports", "ImageStore", "Boot", "TestSupport",
            ]),
        .testTarget(
            name: "ComposefsOCITests", dependencies: ours(["OCI", "Bytes", "Hashing", "LinuxSystem", "TestSupport"]),
            path: "Tests/ComposefsOCITests", swiftSettings: settings),
        .testTarget(
            name: prefix + "CommandTests",
            dependencies: ours([
                "Bytes", "Hashing", "JSON", "LinuxSystem", "FileTree", "Dumpfile", "OCI", "CommandSupport", "Commands", "CommandLine",
                "TestSupport",
            ]), path: "Tests/CommandTests",
            swiftSettings: settings),
    ],
    swiftLanguageModes: [.v6]
)

// CFSOCI_TESTS=Repository,Transfer builds these test targets only: for quick turns while writing.
if let chosen = Context.environment["CFSOCI_TESTS"]?.split(separator: ",").map(String.init) {
    package.targets.removeAll { target in
        target.type == .test && !chosen.contains { target.name == prefix + $0 + "Tests" }
    }
}

// The fuzzers, which nobody but `tools/fuzz` builds: it sets the variable. One program a format; libFuzzer brings its `main`.
if Context.environment["CFSOCI_FUZZ"] != nil {
    let fuzzers: [String: [String]] = [
        "FuzzCompression": ["Compression"],
        "FuzzDumpfile": ["Dumpfile", "EROFS", "FileTree"],
        "FuzzErofs": ["Dumpfile", "EROFS", "FileTree"],
        "FuzzJSON": ["JSON"],
        "FuzzManifest": ["OCIModel"],
        "FuzzMetadata": ["Repository"],
        "FuzzReference": ["OCIModel", "Transports"],
        "FuzzRegistries": ["Registry"],
        "FuzzSplitStream": ["Compression", "Hashing", "SplitStream"],
        "FuzzTar": ["Tar"],
    ]
    package.targets += fuzzers.map { name, dependencies in
        .executableTarget(
            name: prefix + name, dependencies: ours(["Bytes"] + dependencies), path: "Tests/Fuzz/Fuzz/" + name,
            swiftSettings: settings + [.unsafeFlags(["-parse-as-library"])])
    }
}
