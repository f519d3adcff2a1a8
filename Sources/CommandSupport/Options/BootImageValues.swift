import ArgumentParser
package import ComposefsJSON
package import ComposefsOCI

extension ObjectID {
    /// The value of an option that names an image.
    package init(expected hex: String, option: String) throws {
        guard let id = ObjectID(hex: hex) else {
            throw ValidationError("\(option) takes 64 or 128 lower-case hexadecimal digits")
        }
        self = id
    }
}

extension BootImage {
    package var json: JSONValue {
        ["imageId": .string(id.hex), "erofsVersion": .count(Int(version.rawValue)), "xattrs": .string(filtering.rawValue)]
    }
}
