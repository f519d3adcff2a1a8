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

func module(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
    .target(name: name, dependencies: dependencies, swiftSettings: settings)
}

func tests(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .testTarget(name: name + "Tests", dependencies: [.init(stringLiteral: name)] + dependencies, swiftSettings: settings)
}

let argumentParser: Target.Dependency = .product(name: "ArgumentParser", package: "swift-argument-parser")

let package = Package(
    name: "cfsoci",
    products: [
        .library(name: "ComposefsOCI", targets: ["ComposefsOCI"]),
        .executable(name: "cfsoci", targets: ["cfsoci"]),
    ],
    dependencies: [
        // Argument parsing with help, completion and typo hints: the field's standard, and nothing a store should reinvent.
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.5.0")
    ],
    targets: [
        // C: thin shims returning -errno, and system libraries.
        .target(name: "CLinux"),
        .systemLibrary(name: "COpenSSL", pkgConfig: "libcrypto", providers: [.apt(["libssl-dev"])]),
        .systemLibrary(name: "CZstd", pkgConfig: "libzstd", providers: [.apt(["libzstd-dev"])]),
        // Deflate for layers that are pushed: ISA-L is faster, but what it makes depends on the processor, and digests must not.
        .systemLibrary(name: "CZlib", pkgConfig: "zlib", providers: [.apt(["zlib1g-dev"])]),
        .systemLibrary(name: "CISAL", pkgConfig: "libisal", providers: [.apt(["libisal-dev"])]),
        .systemLibrary(name: "CCurl", pkgConfig: "libcurl", providers: [.apt(["libcurl4-openssl-dev"])]),
        // SELinux file contexts are PCRE2 patterns, and libselinux matches them with PCRE2: any other engine, ours most of all, would give
        // some file another label and so the image another identifier.
        .systemLibrary(name: "CPCRE2", pkgConfig: "libpcre2-8", providers: [.apt(["libpcre2-dev"])]),

        // Floor 0: bytes.
        module("Bytes"),
        // Floor 1: know no format of ours.
        module("Hashing", ["Bytes", "COpenSSL"]),
        module("Compression", ["Bytes", "CISAL", "CZlib", "CZstd"]),
        module("LinuxSystem", ["Bytes", "CLinux"]),
        module("JSON", ["Bytes"]),
        // Floor 2: pure formats, bytes in, values out.
        module("FileTree", ["Bytes", "Hashing"]),
        module("Tar", ["Bytes"]),
        module("SplitStream", ["Bytes", "Hashing", "Compression"]),
        // Floor 3: pure formats of a tree.
        module("EROFS", ["Bytes", "Hashing", "FileTree"]),
        module("Dumpfile", ["Bytes", "Hashing", "FileTree"]),
        // Floor 4: the repository; knows no OCI.
        module("Repository", ["Bytes", "Hashing", "LinuxSystem", "JSON", "FileTree", "SplitStream", "EROFS"]),
        // Floor 5: OCI images in a repository; knows no HTTP.
        module(
            "OCI",
            [
                "Bytes", "Hashing", "Compression", "LinuxSystem", "JSON", "FileTree", "Tar", "SplitStream", "EROFS", "Dumpfile",
                "Repository", "CPCRE2",
            ]),
        // Floor 6: the world around the store. registries.conf is TOML, read by a parser of our own: toml++ 3.3, the one that Debian has in C or
        // C++ without more, fails its own assertions after seconds of fuzzing, and the Swift packages bring Foundation.
        module("Registry", ["Bytes", "Hashing", "Compression", "LinuxSystem", "JSON", "OCI", "CCurl"]),
        module("Mounting", ["Bytes", "LinuxSystem"]),
        module("Fuse", ["Bytes", "Hashing", "LinuxSystem", "FileTree", "EROFS"]),
        // Floor 7: one import for Swift programs.
        module(
            "ComposefsOCI",
            [
                "Bytes", "Hashing", "Compression", "LinuxSystem", "JSON", "FileTree", "Tar", "SplitStream", "EROFS", "Dumpfile",
                "Repository", "OCI", "Registry", "Mounting", "Fuse",
            ]),
        // Floor 8 and 9: the command.
        module("Commands", ["Bytes", "Hashing", "Compression", "LinuxSystem", "JSON", "FileTree", "ComposefsOCI", argumentParser]),
        .executableTarget(name: "cfsoci", dependencies: ["Commands"], swiftSettings: settings),

        .target(name: "TestSupport", dependencies: ["Bytes", "LinuxSystem"], path: "Tests/TestSupport", swiftSettings: settings),
        tests("Bytes", []),
        tests("Hashing", ["Bytes"]),
        tests("Compression", ["Bytes"]),
        tests("LinuxSystem", ["Bytes", "TestSupport"]),
        tests("JSON", ["Bytes"]),
        tests("FileTree", ["Bytes", "Hashing"]),
        tests("Tar", ["Bytes"]),
        tests("SplitStream", ["Bytes", "Hashing", "Compression"]),
        tests("EROFS", ["Bytes", "Hashing", "FileTree", "Dumpfile"]),
        tests("Dumpfile", ["Bytes", "Hashing", "FileTree"]),
        tests("Repository", ["Bytes", "Hashing", "JSON", "LinuxSystem", "FileTree", "SplitStream", "EROFS", "TestSupport"]),
        tests(
            "OCI",
            [
                "Bytes", "Hashing", "Compression", "Tar", "LinuxSystem", "JSON", "FileTree", "Dumpfile", "EROFS", "SplitStream",
                "Repository", "TestSupport",
            ]),
        tests("Registry", ["Bytes", "Hashing", "Compression", "LinuxSystem", "JSON", "Repository", "OCI", "TestSupport"]),
        tests("Mounting", ["Bytes", "LinuxSystem", "TestSupport"]),
        tests("Fuse", ["Bytes", "Hashing", "LinuxSystem", "FileTree", "EROFS"]),
        tests("ComposefsOCI", ["Bytes", "Hashing", "LinuxSystem", "TestSupport"]),
        .testTarget(
            name: "CommandTests",
            dependencies: [
                "Bytes", "Hashing", "JSON", "LinuxSystem", "FileTree", "Dumpfile", "ComposefsOCI", "Commands", "cfsoci", "TestSupport",
            ],
            swiftSettings: settings),
    ],
    swiftLanguageModes: [.v6]
)

// The fuzzers, which nobody but `tools/fuzz` builds: it sets the variable. One program a format; libFuzzer brings its `main`.
if Context.environment["CFSOCI_FUZZ"] != nil {
    let fuzzers: [String: [Target.Dependency]] = [
        "FuzzCompression": ["Compression"],
        "FuzzDumpfile": ["Dumpfile", "EROFS", "FileTree"],
        "FuzzErofs": ["Dumpfile", "EROFS", "FileTree"],
        "FuzzJSON": ["JSON"],
        "FuzzManifest": ["OCI"],
        "FuzzMetadata": ["Repository"],
        "FuzzReference": ["OCI"],
        "FuzzRegistries": ["Registry"],
        "FuzzSplitStream": ["Compression", "Hashing", "SplitStream"],
        "FuzzTar": ["Tar"],
    ]
    package.targets += fuzzers.map { name, dependencies in
        .executableTarget(
            name: name, dependencies: ["Bytes"] + dependencies, path: "Tests/Fuzz/Fuzz/" + name,
            swiftSettings: settings + [.unsafeFlags(["-parse-as-library"])])
    }
}
