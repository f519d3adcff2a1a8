import ComposefsBytes
import ComposefsHashing
import ComposefsJSON
import ComposefsLinuxSystem
import ComposefsOCI
import ComposefsVarlink

extension Session {
    func callOCI(_ method: String, _ call: ServiceCall) throws -> MethodReply {
        switch method {
        case "ListImages": try listImages(call)
        case "Check": try checkImages(call)
        case "Inspect": try inspect(call)
        case "Tag": try tag(call)
        case "Untag": try untag(call)
        case "ComputeId": try computeID(call)
        case "Pull": try pull(call)
        case "OciMount": try mountImage(call)
        case "GetInfo": try features(call)
        case "HasLayer": try hasLayer(call)
        case "GetLayer": try getLayer(call)
        case "PutLayer": try putLayer(call)
        case "FinalizeImage": try finalizeImage(call)
        default: preconditionFailure("a method of the description has no implementation")
        }
    }

    private func listImages(_ call: ServiceCall) throws -> MethodReply {
        var parameters = call.parameters
        let store = try store(&parameters)
        let filter = try parameters.optionalString("filter")
        try parameters.finish()
        let images = try store.images.list().images.filter { image in
            filter.map { Self.contains(image.name.bytes, Array($0.utf8)) } ?? true
        }
        return MethodReply(["images": .array(images.map(\.varlink))])
    }

    private static func contains(_ name: [UInt8], _ part: [UInt8]) -> Bool {
        part.isEmpty || name.indices.contains { name[$0...].starts(with: part) }
    }

    private func checkImages(_ call: ServiceCall) throws -> MethodReply {
        var parameters = call.parameters
        let store = try store(&parameters)
        let image = try parameters.optionalString("image").map { ByteString($0) }
        try parameters.finish()
        let report = try store.check(image)
        return MethodReply([
            "ok": .bool(report.isClean), "images_checked": .integer(Int64(report.images.imagesChecked)),
            "images_corrupted": .integer(Int64(report.images.imagesDamaged)),
            "errors": .array(report.images.problems.map { .string($0.description) }), "repo": report.repository.varlink,
        ])
    }

    private func inspect(_ call: ServiceCall) throws -> MethodReply {
        var parameters = call.parameters
        let store = try store(&parameters)
        let name = try parameters.string("image")
        try parameters.finish()
        let image = try store.images.open(ByteString(name)).image
        func text(_ bytes: [UInt8], _ what: String) throws -> JSONValue {
            guard let text = String(validating: bytes, as: UTF8.self) else {
                throw MethodError.internalError("the \(what) of \(ByteString(name)) is not UTF-8")
            }
            return .string(text)
        }
        let version = store.repository.erofsFormats.default
        return MethodReply([
            "manifest": try text(image.manifest.bytes, "manifest"), "config": try text(image.configBytes, "config"),
            "referrers": .array(try store.images.referrers(of: image.manifestDigest).map { .string($0.description) }),
            "composefs_erofs": image.imageID(version).map { .string($0.hex) } ?? .null,
            "composefs_boot_erofs": image.bootImageID(version).map { .string($0.hex) } ?? .null,
        ])
    }

    private func tag(_ call: ServiceCall) throws -> MethodReply {
        var parameters = call.parameters
        let store = try store(&parameters)
        let manifest = try digest(try parameters.string("manifest_digest"), "manifest_digest")
        let name = try parameters.string("name")
        try parameters.finish()
        try store.images.tag(manifest, as: ByteString(name))
        return MethodReply()
    }

    private func untag(_ call: ServiceCall) throws -> MethodReply {
        var parameters = call.parameters
        let store = try store(&parameters)
        let name = try parameters.string("name")
        try parameters.finish()
        try store.images.untag(ByteString(name))
        return MethodReply()
    }

    private func computeID(_ call: ServiceCall) throws -> MethodReply {
        var parameters = call.parameters
        let store = try store(&parameters)
        let name = try parameters.string("image")
        let verity = try parameters.optionalString("verity")
        let isBootable = try parameters.bool("bootable")
        let filtering = try filtering(&parameters) ?? .allowlistOnly
        try parameters.finish()
        let image = try store.images.open(ByteString(name)).image
        if let verity {
            guard let wanted = ObjectID(hex: Array(verity.utf8)) else {
                throw MethodError.invalidDigest("verity: \(ByteString(verity)) is no object's identifier")
            }
            guard wanted == image.configStream else {
                throw MethodError.invalidDigest("verity: the stream of the config is \(image.configStream.hex)")
            }
        }
        let tree = try isBootable ? store.images.bootTree(of: image, filtering) : store.images.tree(of: image, filtering)
        let id = try store.images.imageID(of: tree, store.repository.erofsFormats.default)
        return MethodReply(["image_id": .string(id.hex)])
    }

    /// The parameter `xattrs`.
    func filtering(_ parameters: inout ParameterReader) throws -> XattrFiltering? {
        switch try parameters.optionalString("xattrs") {
        case nil: nil
        case "AllowlistOnly", "allowlist-only": .allowlistOnly
        case "KeepUserXattrs", "keep-user-xattrs": .keepUserXattrs
        default: throw VarlinkServiceError.invalidParameter("xattrs")
        }
    }

    private func mountImage(_ call: ServiceCall) throws -> MethodReply {
        var parameters = call.parameters
        let store = try store(&parameters)
        let image = try parameters.string("image")
        let isBootable = try parameters.bool("bootable")
        let options = try detachedMountOptions(&parameters, call, MethodError.invalidRequest)
        try parameters.finish()
        let mount = SharedDescriptor(try store.mountDetached(ByteString(image), bootable: isBootable, options))
        return MethodReply(["fd_index": 0], [mount])
    }

    private func features(_ call: ServiceCall) throws -> MethodReply {
        try call.parameters.finish()
        return MethodReply(["features": ["splitdirfdstream-v0"]])
    }
}

extension ImageSummary {
    fileprivate var varlink: JSONValue {
        var entry: JSONValue = [
            "name": .string(name.jsonText), "manifest_digest": .string(manifestDigest.description), "is_container": .bool(isContainer),
            "architecture": .string(architecture), "os": .string(os),
        ]
        if let created { entry["created"] = .string(created) }
        entry["layer_count"] = .integer(Int64(layerCount))
        entry["referrer_count"] = .integer(Int64(referrerCount))
        return entry
    }
}
