internal import ComposefsBytes
internal import ComposefsLinuxSystem

// The root of an overlay shows the mode, owner, times and extended attributes of the upper directory, not of the image: the kernel merges
// entries, and the root is the upper directory itself. So a new upper directory gets the attributes of the image's root. A later mount does
// not change it, because it contains the user's changes by then.

/// Marks a directory that has been given the attributes of an image's root. Overlayfs does not show attributes with this prefix.
private let rootAttribute: ByteString = "trusted.overlay.cfsoci"
private let overlayPrefix: ByteString = "trusted.overlay."
/// Overlayfs shows these attributes without the first `overlay.`: they are part of the content.
private let escapedPrefix: ByteString = "trusted.overlay.overlay."

/// Gives an unused upper directory the mode, owner, time and extended attributes of the image's root.
///
/// - Parameters:
///   - image: A mount of the image. Owners are taken as this mount shows them.
///   - path: The upper directory. It is not changed if it has entries or was the upper directory of an overlay before.
func adoptRoot(of image: borrowing FileDescriptor, as path: ByteString) throws(SystemError) {
    let upper = try FileDescriptor.open(path, [.readOnly, .directory])
    guard try isFresh(upper), try !upper.fileSystemStatus().isReadOnly else { return }
    let root = try image.status()
    try upper.changeOwner(uid: root.uid, gid: root.gid)
    for attribute in try image.extendedAttributes() where !isOverlays(attribute.name) {
        do throws(SystemError) {
            try upper.setExtendedAttribute(attribute.name, attribute.value)
        } catch {
            // Overlayfs does the same when it copies a directory up: not every file system supports every attribute.
            guard error.errno == .notSupported || error.errno == .notPermitted else { throw error }
        }
    }
    // Set last: changing the owner clears bits, and the access control list changes those of the group.
    try upper.changeMode(root.permissions)
    try upper.setTime(seconds: root.mtimeSeconds, nanoseconds: root.mtimeNanoseconds)
    // Without this attribute, the next mount would set the same attributes again if the directory is still empty.
    try? upper.setExtendedAttribute(rootAttribute, "1")
}

private func isFresh(_ upper: borrowing FileDescriptor) throws(SystemError) -> Bool {
    guard try upper.entries().isEmpty else { return false }
    return try !upper.extendedAttributes().contains { $0.name.hasPrefix(overlayPrefix) }
}

/// Whether an attribute belongs to overlayfs itself.
private func isOverlays(_ name: ByteString) -> Bool { name.hasPrefix(overlayPrefix) && !name.hasPrefix(escapedPrefix) }
