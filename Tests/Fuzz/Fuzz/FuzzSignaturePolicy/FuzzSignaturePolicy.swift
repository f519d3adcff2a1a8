import ComposefsBytes
import ComposefsHashing
import ComposefsOCIModel
import ComposefsSignaturePolicy

private let manifest = Array("{}".utf8)

private func image(_ reference: String) -> ImageIdentity {
    guard let parsed = try? RegistryReference(parsing: reference) else { preconditionFailure("a reference of the fuzzer is refused") }
    return .registry(parsed)
}

private let images = [
    image("docker.io/library/busybox:latest"), image("a.example.com:5000/ns/app@sha256:" + String(repeating: "a", count: 64)),
    .file("/srv/images/app", transport: "oci"), .dockerArchive,
    .storage(root: "/var/lib/containers/storage", name: "quay.io/a:1", id: String(repeating: "b", count: 64)), .unknown,
]

/// policy.json, keys in it, and the document of a signature: no trap, errors of one line. Each image has a scope with requirements, and one that demands a
/// signature is not accepted without any.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let bytes = Array(UnsafeRawBufferPointer(start: start, count: count))
    let signature = ImageSignature(payload: bytes, signature: Base64.encode(bytes))
    do {
        let policy = try LoadedPolicy(file: "policy.json", parsing: bytes) { .unreadable("open \($0)") }
        for image in images {
            let requirements = policy.policy.requirements(for: image).requirements
            precondition(!requirements.isEmpty, "a scope without requirements")
            let signed = requirements.contains { $0 != .insecureAcceptAnything }
            do throws(SignatureRefusal) {
                var demands = try policy.demands(of: image, named: "image")
                precondition(demands.areMet != signed, "accepted without the signature that is demanded")
                demands.offer(signature, for: manifest)
                if let refusal = demands.refusal(of: .of(manifest), isListed: false) { requireOneLine(refusal) }
            } catch {
                requireOneLine(error)
            }
        }
    } catch {
        requireOneLine(error)
    }
    return 0
}

private func requireOneLine(_ error: some Error) {
    precondition("\(error)".utf8.allSatisfy { $0 >= 0x20 && $0 != 0x7f }, "a message of more than one line")
}
