import ComposefsLinuxSystem
import ComposefsOCI
import Testing

/// The article that maps composefs-rs to this library is complete and names only existing declarations.
struct MappingTests {
    static let article = checkout + "/Sources/ComposefsOCI/ComposefsOCI.docc/FromComposefsRS.md"

    /// Every public item of the root of composefs-oci 0.9, and those of its module `oci_image` that are not in the root.
    static let items = [
        "boot_image", "remove_boot_image", "generate_boot_image", "generate_boot_image_get_fs", "find_matching_boot_image", "ImageInfo",
        "LayerInfo", "SplitstreamInfo", "OCI_REF_PREFIX", "OciFsckError", "OciFsckResult", "OciImage::open", "OciImage::open_ref",
        "OciImageNotFound", "OciRefNotFound", "add_referrer", "list_referrers", "remove_referrer", "remove_referrers_for_subject",
        "layer_info", "layer_dumpfile", "layer_tar", "list_images", "list_refs", "resolve_ref", "tag_image", "untag_image", "oci_fsck",
        "oci_fsck_image", "skopeo::pull_image", "skopeo::pull", "ComponentId", "NullReporter", "ProgressEvent", "ProgressReporter",
        "SharedReporter", "ImportStats", "PullOptions", "PullResult", "UpgradeResult", "LocalFetchOpt", "OpenConfig", "OciDigest",
        "ContentAndVerity", "IMAGE_REF_KEY", "IMAGE_REF_KEY_V1", "BOOT_IMAGE_REF_KEY", "BOOT_IMAGE_REF_KEY_V1", "LAYER_CONTENT_TYPE",
        "BLOB_CONTENT_TYPE", "composefs_erofs_for_config", "composefs_erofs_for_manifest", "composefs_boot_erofs_for_config",
        "composefs_boot_erofs_for_manifest", "import_layer", "open_config", "pull", "upgrade_repo", "write_config", "write_config_raw",
        "sha256_content_digest", "extract_diff_ids", "extract_layer_ids", "layer_content_id", "write_manifest", "has_manifest",
        "manifest_identifier", "blob_identifier", "write_blob", "open_blob", "cleanup_dangling_referrers",
        // Modules.
        "boot", "cstor", "delta", "image", "layer_sync", "layer_transport", "oci_layout", "skopeo", "tar", "varlink_types", "design",
        "sealing_spec",
    ]

    static let microsandbox = checkout + "/Sources/ComposefsOCI/ComposefsOCI.docc/FromMicrosandbox.md"

    static func rows(_ article: ByteString = article) throws -> [[Substring]] {
        try readText(article).split(separator: "\n").filter { $0.hasPrefix("| ") && !$0.hasPrefix("| ---") }
            .map { $0.dropFirst().dropLast().split(separator: "|", omittingEmptySubsequences: false) }
    }

    static func code(in text: Substring) -> [Substring] {
        text.split(separator: "`", omittingEmptySubsequences: false).enumerated().compactMap { $0.isMultiple(of: 2) ? nil : $1 }
    }

    /// Every public item of the root of microsandbox-image 0.7 with the functions that programs call, and those of its public modules.
    static let microsandboxItems = [
        "ImageArchiveFormat", "ImageLoadOptions", "ImageSaveConfig", "ImageSaveLayer", "ImageSaveRequest", "LoadedImage", "load_archive",
        "save_archive", "save_docker_archive", "RegistryAuth", "CachedImageMetadata", "CachedLayerMetadata", "FlatRootfsRef", "GlobalCache",
        "ImageConfig", "Digest", "ImageError", "ImageResult", "Reference", "Arch", "Os", "Platform", "PullProgress", "PullProgressHandle",
        "PullProgressSender", "progress_channel", "PullOptions", "PullPolicy", "PullResult", "RootfsMaterialization", "Registry",
        "RegistryBuilder", "Registry::new", "Registry::builder", "Registry::pull", "Registry::pull_cached",
        "Registry::pull_cached_by_manifest_digest", "Registry::materialize_cached_layers", "Registry::materialize_flat_rootfs",
        "Registry::pull_with_progress", "Registry::pull_with_sender", "Platform::new", "Platform::with_variant", "Platform::host_linux",
        "erofs", "ext4", "tar", "tree", "write_erofs", "write_fsmeta", "ErofsReader", "read_file_from_erofs", "entry_info_from_erofs",
        "format_ext4", "format_ext4_with_tree", "Ext4FormatOptions", "grow_image", "ingest_tar", "ingest_compressed_tar", "FileTree",
        "snapshot", "SnapshotDescriptor", "SnapshotFormat", "SnapshotScope", "SnapshotState", "UpperLayer", "UpperIntegrity",
        "CheckpointSnapshotState",
    ]

    @Test(arguments: [(article, items), (microsandbox, microsandboxItems)])
    func everyItemIsMapped(article: ByteString, items: [String]) throws {
        let mapped = Set(try Self.rows(article).compactMap(\.first).flatMap(Self.code))
        #expect(items.filter { !mapped.contains(Substring($0)) } == [])
    }

    @Test(arguments: [(article, 80), (microsandbox, 20)]) func everyCounterpartIsDeclared(article: ByteString, least: Int) throws {
        var declared: [Substring: Set<Substring>] = [:]
        for module in [
            "ComposefsOCI", "Transfer", "Boot", "ImageStore", "Transports", "OCIModel", "Hashing", "SplitStream", "Tar", "EROFS",
            "Registry", "Repository", "BootFormats", "Disks", "Ext4", "FileTree", "SnapshotFormat",
        ] {
            try Self.collect(checkout + "/Sources/" + ByteString(module), Substring(module), &declared)
        }
        let all = declared.values.reduce(into: Set()) { $0.formUnion($1) }
        var count = 0
        for row in try Self.rows(article) where row.count == 4 {
            let modules = row[2].split(separator: ",").map { Substring($0.drop { $0 == " " }.prefix { $0 != " " }) }
            let known = modules.reduce(into: Set()) { $0.formUnion(declared[$1] ?? []) }
            for name in Self.code(in: row[1]) {
                for part in name.prefix(while: { $0 != "(" }).split(separator: ".") {
                    let isDeclared = known.contains(part)
                    #expect(isDeclared, "\(name) of \(row[2])")
                    count += 1
                }
            }
            // In remarks, only text in the form of a function or member of this library.
            for name in Self.code(in: row[3]) where name.hasSuffix(")") {
                for part in name.prefix(while: { $0 != "(" }).split(separator: ".") {
                    let isDeclared = all.contains(part)
                    #expect(isDeclared, "\(name)")
                }
            }
        }
        #expect(count > least)
    }

    /// The names that a module's public declarations introduce.
    static func collect(_ path: ByteString, _ module: Substring, _ declared: inout [Substring: Set<Substring>]) throws {
        for entry in try FileDescriptor.open(path, [.readOnly, .directory]).entries() {
            let inner = path + "/" + entry.name
            if !entry.name.hasSuffix(".swift") {
                if !entry.name.hasSuffix(".docc") { try collect(inner, module, &declared) }
                continue
            }
            for line in try readText(inner).split(separator: "\n") {
                let words = line.split(whereSeparator: { !$0.isLetter && !$0.isNumber && $0 != "_" })
                // Cases of enums, not of switches.
                guard words.first == "public" || words.first == "case" && !line.contains("case .") else { continue }
                guard let keyword = words.firstIndex(where: { Self.keywords.contains($0) }), keyword + 1 < words.count else { continue }
                declared[module, default: []].insert(words[keyword + 1])
            }
        }
    }

    static let keywords: Set<Substring> = ["func", "var", "let", "struct", "class", "enum", "protocol", "typealias", "case"]
}
