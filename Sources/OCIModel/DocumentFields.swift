import ComposefsBytes
package import ComposefsHashing
package import ComposefsJSON

/// The members of an object in a document.
///
/// Members that affect a tree or a digest are read strictly: a member of the wrong type is an error. All other members are read leniently
/// (`text`, `list`, `texts`, `names`, `object`), because registries have documents with a string for a list or a number for a label. For
/// optional members, null counts as absent, as in the tools that write these documents.
package struct DocumentFields {
    package let object: JSONObject
    /// The kind of document: `manifest`, `index`, …
    package let document: String
    /// The position in the document: `layers[3].`, or empty.
    private let prefix: String

    private init(_ object: JSONObject, _ document: String, _ prefix: String) {
        self.object = object
        self.document = document
        self.prefix = prefix
    }

    /// Parses a document and returns its outermost object.
    package init(parsing bytes: [UInt8], document: String, limit: Int) throws(OCIError) {
        guard bytes.count <= limit else { throw .malformed(document: document, .tooLarge(size: bytes.count, limit: limit)) }
        let value: JSONValue
        do throws(JSONError) { value = try JSONValue.parse(bytes) } catch { throw .malformed(document: document, .invalidJSON(error)) }
        guard let object = value.object else { throw .malformed(document: document, .wrongType(value.kind, wanted: .object)) }
        self.init(object, document, "")
    }

    /// Parses a document that is an array and returns its objects.
    package static func array(parsing bytes: [UInt8], document: String, limit: Int) throws(OCIError) -> [DocumentFields] {
        guard bytes.count <= limit else { throw .malformed(document: document, .tooLarge(size: bytes.count, limit: limit)) }
        let value: JSONValue
        do throws(JSONError) { value = try JSONValue.parse(bytes, limits: JSONLimits(values: 1 << 24)) } catch {
            throw .malformed(document: document, .invalidJSON(error))
        }
        guard let array = value.array else { throw .malformed(document: document, .wrongType(value.kind, wanted: .array)) }
        var list: [DocumentFields] = []
        for (index, element) in array.enumerated() {
            guard let object = element.object else {
                throw .malformed(document: document, .member("[\(index)]", .wrongType(element.kind, wanted: .object)))
            }
            list.append(DocumentFields(object, document, "[\(index)]."))
        }
        return list
    }

    package func malformed(_ key: String, _ fault: OCIError.MemberFault) -> OCIError {
        .malformed(document: document, .member(prefix + key, fault))
    }

    private func value(_ key: String) -> JSONValue? {
        guard let value = object[key], !value.isNull else { return nil }
        return value
    }

    package func has(_ key: String) -> Bool { object[key] != nil }

    private func wrongType(_ key: String, _ value: JSONValue?, _ wanted: OCIError.WantedType) -> OCIError {
        malformed(key, value.map { .wrongType($0.kind, wanted: wanted) } ?? .missing)
    }

    package func string(_ key: String) throws(OCIError) -> String? {
        guard let value = value(key) else { return nil }
        guard let string = value.string else { throw wrongType(key, value, .string) }
        return string
    }

    package func requiredString(_ key: String) throws(OCIError) -> String {
        guard let string = object[key]?.string else { throw wrongType(key, object[key], .string) }
        return string
    }

    /// A size in bytes: a non-negative integer, at most 2^63-1.
    package func size(_ key: String) throws(OCIError) -> UInt64 {
        guard let value = object[key] else { throw malformed(key, .missing) }
        guard let number = value.int64, let size = UInt64(exactly: number) else {
            throw malformed(key, .notSize(value))
        }
        return size
    }

    package func signed(_ key: String) throws(OCIError) -> Int64 {
        guard let number = object[key]?.int64 else { throw wrongType(key, object[key], .integer) }
        return number
    }

    package func digest(_ key: String) throws(OCIError) -> ContentDigest {
        let text = try requiredString(key)
        guard let digest = ContentDigest(text) else { throw malformed(key, .notDigest(text)) }
        return digest
    }

    package func fields(_ key: String) throws(OCIError) -> DocumentFields? {
        guard let value = value(key) else { return nil }
        guard let object = value.object else { throw wrongType(key, value, .object) }
        return DocumentFields(object, document, "\(prefix)\(key).")
    }

    func requiredFields(_ key: String) throws(OCIError) -> DocumentFields {
        guard let object = object[key]?.object else { throw wrongType(key, object[key], .object) }
        return DocumentFields(object, document, "\(prefix)\(key).")
    }

    /// The objects of an array; empty if it is absent.
    package func array(_ key: String) throws(OCIError) -> [DocumentFields] {
        value(key) == nil ? [] : try requiredArray(key)
    }

    func requiredArray(_ key: String) throws(OCIError) -> [DocumentFields] {
        guard let array = object[key]?.array else { throw wrongType(key, object[key], .array) }
        var list: [DocumentFields] = []
        for (index, element) in array.enumerated() {
            guard let object = element.object else { throw malformed("\(key)[\(index)]", .wrongType(element.kind, wanted: .object)) }
            list.append(DocumentFields(object, document, "\(prefix)\(key)[\(index)]."))
        }
        return list
    }

    package func strings(_ key: String) throws(OCIError) -> [String]? {
        guard let value = value(key) else { return nil }
        guard let array = value.array else { throw wrongType(key, value, .array) }
        var list: [String] = []
        for (index, element) in array.enumerated() {
            guard let text = element.string else { throw malformed("\(key)[\(index)]", .wrongType(element.kind, wanted: .string)) }
            list.append(text)
        }
        return list
    }

    // MARK: Members that nothing depends on

    /// A string, or a number or boolean as written in the document; nil for anything else.
    package func text(_ key: String) -> String? { value(key).flatMap(Self.text) }

    /// The strings of an array. A single string counts as an array of one. Nil for anything else.
    package func list(_ key: String) -> [String]? {
        guard let value = value(key) else { return nil }
        return value.array.map { $0.compactMap(Self.text) } ?? value.string.map { [$0] }
    }

    /// The members of an object, as text; empty for anything else.
    package func texts(_ key: String) -> [String: String] {
        var map: [String: String] = [:]
        for (name, value) in value(key)?.object?.members ?? [] where !value.isNull { map[name] = Self.text(value) ?? value.description }
        return map
    }

    /// The keys of an object that is used as a set, or the strings of an array; nil for anything else.
    package func names(_ key: String) -> [String]? { value(key)?.object?.keys ?? list(key) }

    /// An object; nil for anything else.
    package func object(_ key: String) -> DocumentFields? {
        value(key)?.object.map { DocumentFields($0, document, "\(prefix)\(key).") }
    }

    private static func text(_ value: JSONValue) -> String? {
        switch value {
        case .string(let text): text
        case .bool, .integer, .unsigned, .double: value.description
        case .null, .array, .object: nil
        }
    }
}
