// swift-tools-version: 6.2
import PackageDescription

// Fuzz targets, a package of their own so that users never build them. `tools/fuzz` builds and runs them. The modules are those of the
// main package, through the link `Sources`.
let settings: [SwiftSetting] = [
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableExperimentalFeature("Lifetimes"),
]

func module(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
    .target(name: name, dependencies: dependencies, swiftSettings: settings)
}

/// One program a format; libFuzzer brings its `main`.
func fuzzer(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .executableTarget(
        name: name, dependencies: ["Bytes"] + dependencies, path: "Fuzz/" + name,
        swiftSettings: settings + [.unsafeFlags(["-parse-as-library"])])
}

let package = Package(
    name: "Fuzz",
    targets: [
        .target(name: "CLinux"),
        .systemLibrary(name: "COpenSSL", pkgConfig: "libcrypto"),
        .systemLibrary(name: "CZstd", pkgConfig: "libzstd"),
        .systemLibrary(name: "CISAL", pkgConfig: "libisal"),
        .systemLibrary(name: "CPCRE2", pkgConfig: "libpcre2-8"),
        module("Bytes"),
        module("Hashing", ["Bytes", "COpenSSL"]),
        module("Compression", ["Bytes", "CISAL", "CZstd"]),
        module("LinuxSystem", ["Bytes", "CLinux"]),
        module("JSON", ["Bytes"]),
        module("FileTree", ["Bytes", "Hashing"]),
        module("Tar", ["Bytes"]),
        module("SplitStream", ["Bytes", "Hashing", "Compression"]),
        module("EROFS", ["Bytes", "Hashing", "FileTree"]),
        module("Dumpfile", ["Bytes", "Hashing", "FileTree"]),
        module("Repository", ["Bytes", "Hashing", "LinuxSystem", "JSON", "FileTree", "SplitStream", "EROFS"]),
        module(
            "OCI",
            [
                "Bytes", "Hashing", "Compression", "LinuxSystem", "JSON", "FileTree", "Tar", "SplitStream", "EROFS", "Dumpfile",
                "Repository", "CPCRE2",
            ]),
        fuzzer("FuzzCompression", ["Compression"]),
        fuzzer("FuzzDumpfile", ["Dumpfile", "EROFS", "FileTree"]),
        fuzzer("FuzzErofs", ["Dumpfile", "EROFS", "FileTree"]),
        fuzzer("FuzzJSON", ["JSON"]),
        fuzzer("FuzzManifest", ["OCI"]),
        fuzzer("FuzzMetadata", ["Repository"]),
        fuzzer("FuzzReference", ["OCI"]),
        fuzzer("FuzzSplitStream", ["Compression", "Hashing", "SplitStream"]),
        fuzzer("FuzzTar", ["Tar"]),
    ],
    swiftLanguageModes: [.v6]
)
