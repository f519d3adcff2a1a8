internal import ComposefsBytes
internal import ComposefsJSON
internal import ComposefsOCIModel

/// Reads the members of a policy (containers-policy.json(5)).
enum PolicyParser {
    static func policy(_ value: JSONValue) throws(SignaturePolicyFault) -> ImagePolicy {
        let object = try Members(value, "", known: ["default", "transports"])
        var transports: [ByteString: [ByteString: [PolicyRequirement]]] = [:]
        if let list = object["transports"] {
            for (transport, scopes) in try members(list, "transports") {
                let location = "transports." + shown(transport)
                var parsed: [ByteString: [PolicyRequirement]] = [:]
                for (scope, requirements) in try members(scopes, location) {
                    let inner = "\(location)[\(quoted(scope))]"
                    if !scope.isEmpty, let fault = ScopeFault(of: scope, transport: transport) {
                        throw SignaturePolicyFault(inner, .scope(fault))
                    }
                    // Hosts that differ only in their case are one: what is required of either is required of both.
                    let folded = ImageIdentity.folded(ByteString(scope), transport: transport)
                    parsed[folded, default: []] += try self.requirements(requirements, inner)
                }
                transports[ByteString(transport)] = parsed
            }
        }
        guard let defaults = object["default"] else { throw SignaturePolicyFault("default", .missing) }
        return ImagePolicy(defaults: try requirements(defaults, "default"), transports: transports)
    }

    private static func shown(_ key: String) -> String {
        key.utf8.allSatisfy { ByteClass.isAlphanumeric($0) || $0 == UInt8(ascii: "-") } && !key.isEmpty ? key : quoted(key)
    }

    private static func members(_ value: JSONValue, _ location: String) throws(SignaturePolicyFault) -> JSONObject {
        guard let object = value.object else {
            throw SignaturePolicyFault(location, .wrongType(found: "\(value.kind)", wanted: "an object"))
        }
        return object
    }

    private static func requirements(_ value: JSONValue, _ location: String) throws(SignaturePolicyFault) -> [PolicyRequirement] {
        guard let list = value.array else { throw SignaturePolicyFault(location, .wrongType(found: "\(value.kind)", wanted: "an array")) }
        guard !list.isEmpty else { throw SignaturePolicyFault(location, .noRequirements) }
        var found: [PolicyRequirement] = []
        for (index, value) in list.enumerated() { found.append(try requirement(value, "\(location)[\(index)]")) }
        return found
    }

    private static func requirement(_ value: JSONValue, _ location: String) throws(SignaturePolicyFault) -> PolicyRequirement {
        switch try Members.type(of: value, location) {
        case "insecureAcceptAnything":
            _ = try Members(value, location, known: ["type"])
            return .insecureAcceptAnything
        case "reject":
            _ = try Members(value, location, known: ["type"])
            return .reject
        case "signedBy":
            try checkSignedBy(value, location)
            return .uncheckable(.gpg)
        case "signedBaseLayer":
            let object = try Members(value, location, known: ["type", "baseLayerIdentity"])
            guard let identity = object["baseLayerIdentity"] else { throw SignaturePolicyFault(location + ".baseLayerIdentity", .missing) }
            _ = try self.identity(identity, location + ".baseLayerIdentity")
            return .uncheckable(.baseLayer)
        case "sigstoreSigned": return try sigstore(value, location)
        case let other: throw SignaturePolicyFault(location, .unknownRequirement(other))
        }
    }

    /// Checked although it is not used: a policy with a mistake is refused as a whole.
    private static func checkSignedBy(_ value: JSONValue, _ location: String) throws(SignaturePolicyFault) {
        let sources = ["keyPath", "keyPaths", "keyData"]
        let object = try Members(value, location, known: ["type", "keyType", "signedIdentity"] + sources)
        let type = try object.requiredText("keyType")
        guard ["GPGKeys", "signedByGPGKeys", "X509Certificates", "signedByX509CAs"].contains(type) else {
            throw SignaturePolicyFault(location + ".keyType", .unknownKeyType(type))
        }
        try object.requireOne(of: sources)
        if object["keyPath"] != nil { _ = try object.requiredText("keyPath") }
        if object["keyPaths"] != nil { _ = try object.texts("keyPaths") }
        if object["keyData"] != nil { _ = try object.data("keyData") }
        _ = try signedIdentity(object)
    }

    private static let keySources = ["keyPath", "keyPaths", "keyData", "keyDatas", "fulcio", "pki"]
    private static let rekorSources = ["rekorPublicKeyPath", "rekorPublicKeyPaths", "rekorPublicKeyData", "rekorPublicKeyDatas"]

    private static func sigstore(_ value: JSONValue, _ location: String) throws(SignaturePolicyFault) -> PolicyRequirement {
        let object = try Members(value, location, known: ["type", "signedIdentity"] + keySources + rekorSources)
        try object.requireOne(of: keySources)
        let hasLog = try object.requireAtMostOne(of: rekorSources)
        var keys: [SigstoreRequirement.Key] = []
        for name in ["keyPath", "rekorPublicKeyPath"] where object[name] != nil {
            let path = try object.requiredText(name)
            if name == "keyPath" { keys = [.file(ByteString(path))] }
        }
        for name in ["keyPaths", "rekorPublicKeyPaths"] where object[name] != nil {
            let paths = try object.texts(name)
            guard !paths.isEmpty else { throw SignaturePolicyFault("\(location).\(name)", .emptyList) }
            if name == "keyPaths" { keys = paths.map { .file(ByteString($0)) } }
        }
        for name in ["keyData", "rekorPublicKeyData"] where object[name] != nil {
            let data = try object.data(name)
            if name == "keyData" { keys = [.data(data)] }
        }
        for name in ["keyDatas", "rekorPublicKeyDatas"] where object[name] != nil {
            let list = try object.datas(name)
            guard !list.isEmpty else { throw SignaturePolicyFault("\(location).\(name)", .emptyList) }
            if name == "keyDatas" { keys = list.map { .data($0) } }
        }
        if let fulcio = object["fulcio"] { try checkFulcio(fulcio, location + ".fulcio", hasLog: hasLog) }
        if let pki = object["pki"] { try checkPKI(pki, location + ".pki") }
        let identity = try signedIdentity(object)
        if object["fulcio"] != nil { return .uncheckable(.fulcio) }
        if object["pki"] != nil { return .uncheckable(.pki) }
        if hasLog { return .uncheckable(.rekor) }
        return .sigstoreSigned(SigstoreRequirement(keys: keys, identity: identity))
    }

    private static func checkFulcio(_ value: JSONValue, _ location: String, hasLog: Bool) throws(SignaturePolicyFault) {
        let object = try Members(value, location, known: ["caPath", "caData", "oidcIssuer", "subjectEmail"])
        try object.requireOne(of: ["caPath", "caData"])
        if object["caPath"] != nil { _ = try object.requiredText("caPath") }
        if object["caData"] != nil { _ = try object.data("caData") }
        _ = try object.requiredText("oidcIssuer")
        _ = try object.requiredText("subjectEmail")
        guard hasLog else { throw SignaturePolicyFault(location, .noneOf(rekorSources)) }
    }

    private static func checkPKI(_ value: JSONValue, _ location: String) throws(SignaturePolicyFault) {
        let subjects = ["subjectEmail", "subjectHostname"]
        let roots = ["caRootsPath", "caRootsData"]
        let intermediates = ["caIntermediatesPath", "caIntermediatesData"]
        let object = try Members(value, location, known: roots + intermediates + subjects)
        try object.requireOne(of: roots)
        _ = try object.requireAtMostOne(of: intermediates)
        for name in [roots[0], intermediates[0]] + subjects where object[name] != nil { _ = try object.requiredText(name) }
        for name in [roots[1], intermediates[1]] where object[name] != nil { _ = try object.data(name) }
        guard subjects.contains(where: { object[$0] != nil }) else { throw SignaturePolicyFault(location, .noneOf(subjects)) }
    }

    // MARK: Signed identities

    private static func signedIdentity(_ object: Members) throws(SignaturePolicyFault) -> SignedIdentity {
        guard let value = object["signedIdentity"] else { return .matchRepoDigestOrExact }
        return try identity(value, object.location + ".signedIdentity")
    }

    private static func identity(_ value: JSONValue, _ location: String) throws(SignaturePolicyFault) -> SignedIdentity {
        func plain(_ identity: SignedIdentity) throws(SignaturePolicyFault) -> SignedIdentity {
            _ = try Members(value, location, known: ["type"])
            return identity
        }
        switch try Members.type(of: value, location) {
        case "matchExact": return try plain(.matchExact)
        case "matchRepoDigestOrExact": return try plain(.matchRepoDigestOrExact)
        case "matchRepository": return try plain(.matchRepository)
        case "exactReference":
            let object = try Members(value, location, known: ["type", "dockerReference"])
            let reference = try self.reference(object, "dockerReference")
            guard !reference.isNameOnly else { throw SignaturePolicyFault(location + ".dockerReference", .nameOnly(reference.text)) }
            return .exactReference(reference)
        case "exactRepository":
            let object = try Members(value, location, known: ["type", "dockerRepository"])
            return .exactRepository(try reference(object, "dockerRepository"))
        case "remapIdentity":
            let object = try Members(value, location, known: ["type", "prefix", "signedPrefix"])
            return .remapIdentity(prefix: try prefix(object, "prefix"), signedPrefix: try prefix(object, "signedPrefix"))
        case let other: throw SignaturePolicyFault(location, .unknownIdentity(other))
        }
    }

    private static func reference(_ object: Members, _ name: String) throws(SignaturePolicyFault) -> StatedReference {
        let text = try object.requiredText(name)
        guard let reference = StatedReference(parsing: text) else {
            throw SignaturePolicyFault("\(object.location).\(name)", .notReference(text))
        }
        return reference
    }

    private static func prefix(_ object: Members, _ name: String) throws(SignaturePolicyFault) -> String {
        let text = try object.requiredText(name)
        guard StatedReference.isPrefix(text) else { throw SignaturePolicyFault("\(object.location).\(name)", .notPrefix(text)) }
        return text
    }
}

/// The members of an object, of which only known ones are allowed.
private struct Members {
    let object: JSONObject
    let location: String

    init(_ value: JSONValue, _ location: String, known: [String]) throws(SignaturePolicyFault) {
        guard let object = value.object else {
            throw SignaturePolicyFault(location, .wrongType(found: "\(value.kind)", wanted: "an object"))
        }
        self.object = object
        self.location = location
        for (key, _) in object where !known.contains(where: { $0.utf8.elementsEqual(key.utf8) }) {
            throw SignaturePolicyFault(path(quoted(key)), .unknownMember)
        }
    }

    subscript(name: String) -> JSONValue? { object[name] }

    private func path(_ name: String) -> String { location.isEmpty ? name : "\(location).\(name)" }

    static func type(of value: JSONValue, _ location: String) throws(SignaturePolicyFault) -> String {
        guard let object = value.object else {
            throw SignaturePolicyFault(location, .wrongType(found: "\(value.kind)", wanted: "an object"))
        }
        guard let type = object["type"] else { throw SignaturePolicyFault(location + ".type", .missing) }
        guard let text = type.string else {
            throw SignaturePolicyFault(location + ".type", .wrongType(found: "\(type.kind)", wanted: "a string"))
        }
        return text
    }

    /// A string that is not empty.
    func requiredText(_ name: String) throws(SignaturePolicyFault) -> String {
        guard let value = object[name] else { throw SignaturePolicyFault(path(name), .missing) }
        guard let text = value.string else {
            throw SignaturePolicyFault(path(name), .wrongType(found: "\(value.kind)", wanted: "a string"))
        }
        guard !text.isEmpty else { throw SignaturePolicyFault(path(name), .emptyText) }
        return text
    }

    func texts(_ name: String) throws(SignaturePolicyFault) -> [String] {
        guard let value = object[name], let list = value.array else {
            throw SignaturePolicyFault(path(name), .wrongType(found: "\(object[name]?.kind ?? .null)", wanted: "an array"))
        }
        var texts: [String] = []
        for (index, value) in list.enumerated() {
            let element = "\(path(name))[\(index)]"
            guard let text = value.string else {
                throw SignaturePolicyFault(element, .wrongType(found: "\(value.kind)", wanted: "a string"))
            }
            guard !text.isEmpty else { throw SignaturePolicyFault(element, .emptyText) }
            texts.append(text)
        }
        return texts
    }

    func data(_ name: String) throws(SignaturePolicyFault) -> [UInt8] {
        guard let data = Base64.decode(try requiredText(name).utf8) else { throw SignaturePolicyFault(path(name), .notBase64) }
        return data
    }

    func datas(_ name: String) throws(SignaturePolicyFault) -> [[UInt8]] {
        var list: [[UInt8]] = []
        for (index, text) in try texts(name).enumerated() {
            guard let data = Base64.decode(text.utf8) else { throw SignaturePolicyFault("\(path(name))[\(index)]", .notBase64) }
            list.append(data)
        }
        return list
    }

    func requireOne(of names: [String]) throws(SignaturePolicyFault) {
        let found = names.count { object[$0] != nil }
        guard found == 1 else { throw SignaturePolicyFault(location, .notOne(of: names, found: found)) }
    }

    /// Whether one of the members is given.
    func requireAtMostOne(of names: [String]) throws(SignaturePolicyFault) -> Bool {
        let found = names.count { object[$0] != nil }
        guard found <= 1 else { throw SignaturePolicyFault(location, .several(of: names)) }
        return found == 1
    }
}
