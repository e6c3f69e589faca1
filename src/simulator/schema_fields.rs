//! Every field of the requests Google knows, as data: what the proto parser in front of Gemini would take.
//!
//! Names are in camelCase; the checker takes `snake_case` too, as Google does.

/// Which of Google's two services knows a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Both,
    Gemini,
    Vertex,
}

/// What a single value must be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Str,
    Bytes,
    Bool,
    Int,
    Float,
    Enum(&'static [&'static str]),
    /// `google.protobuf.Struct`: any object.
    Object,
    /// `google.protobuf.Value`: anything.
    Any,
    Message(&'static Message),
}

/// How often the value stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Many {
    One,
    List,
    Map,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) many: Many,
    pub(super) side: Side,
}

#[derive(Debug)]
pub(super) struct Message {
    pub(super) name: &'static str,
    pub(super) fields: &'static [Field],
}

const fn one(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, many: Many::One, side: Side::Both }
}
const fn list(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, many: Many::List, side: Side::Both }
}
const fn map(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, many: Many::Map, side: Side::Both }
}
const fn on(side: Side, field: Field) -> Field {
    Field { name: field.name, kind: field.kind, many: field.many, side }
}

use Kind::{Any, Bool, Bytes, Enum, Float, Int, Object, Str};
use Side::{Gemini, Vertex};

const fn msg(message: &'static Message) -> Kind {
    Kind::Message(message)
}

/// `GenerateContentRequest`.
pub(super) static GENERATE: Message = Message {
    name: "GenerateContentRequest",
    fields: &[
        one("model", Str),
        list("contents", msg(&CONTENT)),
        one("systemInstruction", msg(&CONTENT)),
        list("tools", msg(&TOOL)),
        one("toolConfig", msg(&TOOL_CONFIG)),
        list("safetySettings", msg(&SAFETY)),
        one("generationConfig", msg(&GENERATION)),
        one("cachedContent", Str),
        map("labels", Str),
        one("serviceTier", Enum(&["UNSPECIFIED", "STANDARD", "FLEX", "PRIORITY"])),
        on(Gemini, one("store", Bool)),
        one("continuationToken", Str),
        on(Vertex, one("modelArmorConfig", Object)),
        on(Vertex, one("outputConfig", Object)),
    ],
};

/// `CountTokensRequest`.
pub(super) static COUNT: Message = Message {
    name: "CountTokensRequest",
    fields: &[
        one("model", Str),
        list("contents", msg(&CONTENT)),
        on(Gemini, one("generateContentRequest", msg(&GENERATE))),
        on(Vertex, list("instances", Any)),
        on(Vertex, one("systemInstruction", msg(&CONTENT))),
        on(Vertex, list("tools", msg(&TOOL))),
        on(Vertex, one("generationConfig", msg(&GENERATION))),
    ],
};

/// `CachedContent`.
pub(super) static CACHE: Message = Message {
    name: "CachedContent",
    fields: &[
        one("name", Str),
        one("model", Str),
        one("displayName", Str),
        list("contents", msg(&CONTENT)),
        one("systemInstruction", msg(&CONTENT)),
        list("tools", msg(&TOOL)),
        one("toolConfig", msg(&TOOL_CONFIG)),
        one("ttl", Str),
        one("expireTime", Str),
        on(Vertex, one("encryptionSpec", Object)),
    ],
};

/// `ComputeTokensRequest`.
pub(super) static COMPUTE: Message = Message {
    name: "ComputeTokensRequest",
    fields: &[one("model", Str), list("contents", msg(&CONTENT)), list("instances", Any)],
};

const TASKS: &[&str] = &[
    "TASK_TYPE_UNSPECIFIED",
    "RETRIEVAL_QUERY",
    "RETRIEVAL_DOCUMENT",
    "SEMANTIC_SIMILARITY",
    "CLASSIFICATION",
    "CLUSTERING",
    "QUESTION_ANSWERING",
    "FACT_VERIFICATION",
    "CODE_RETRIEVAL_QUERY",
];

/// `EmbedContentRequest`.
pub(super) static EMBED: Message = Message {
    name: "EmbedContentRequest",
    fields: &[
        one("model", Str),
        one("content", msg(&CONTENT)),
        one("taskType", Enum(TASKS)),
        one("title", Str),
        one("outputDimensionality", Int),
        on(Vertex, one("autoTruncate", Bool)),
        one("embedContentConfig", msg(&EMBED_CONFIG)),
    ],
};

static EMBED_CONFIG: Message = Message {
    name: "EmbedContentConfig",
    fields: &[
        one("taskType", Enum(TASKS)),
        one("title", Str),
        one("outputDimensionality", Int),
        one("autoTruncate", Bool),
        one("documentOcr", Bool),
        one("audioTrackExtraction", Bool),
    ],
};

/// `BatchEmbedContentsRequest`.
pub(super) static BATCH_EMBED: Message = Message {
    name: "BatchEmbedContentsRequest",
    fields: &[one("model", Str), list("requests", msg(&EMBED))],
};

/// The body of `predict`, as far as embeddings go.
pub(super) static PREDICT: Message = Message {
    name: "PredictRequest",
    fields: &[list("instances", msg(&INSTANCE)), one("parameters", msg(&PARAMETERS))],
};
static INSTANCE: Message = Message {
    name: "TextEmbeddingInstance",
    fields: &[one("content", Str), one("taskType", Enum(TASKS)), one("title", Str), one("mimeType", Str)],
};
static PARAMETERS: Message = Message {
    name: "TextEmbeddingParameters",
    fields: &[one("outputDimensionality", Int), one("autoTruncate", Bool)],
};

static CONTENT: Message = Message { name: "Content", fields: &[one("role", Str), list("parts", msg(&PART))] };

/// The fields of a part of which exactly one must stand.
pub(super) const DATA: &[&str] = &[
    "text",
    "inlineData",
    "fileData",
    "functionCall",
    "functionResponse",
    "executableCode",
    "codeExecutionResult",
    "toolCall",
    "toolResponse",
];

static PART: Message = Message {
    name: "Part",
    fields: &[
        one("text", Str),
        one("inlineData", msg(&BLOB)),
        one("fileData", msg(&FILE)),
        one("functionCall", msg(&CALL)),
        one("functionResponse", msg(&RESPONSE)),
        one("executableCode", msg(&CODE)),
        one("codeExecutionResult", msg(&CODE_RESULT)),
        on(Gemini, one("toolCall", msg(&TOOL_CALL))),
        on(Gemini, one("toolResponse", msg(&TOOL_RESPONSE))),
        one("thought", Bool),
        one("thoughtSignature", Bytes),
        one("videoMetadata", msg(&VIDEO)),
        one("mediaResolution", msg(&PART_RESOLUTION)),
        one("mediaProcessing", Enum(&["STATIC", "AGENTIC"])),
        on(Gemini, one("partMetadata", Object)),
    ],
};

static BLOB: Message =
    Message { name: "Blob", fields: &[one("mimeType", Str), one("data", Bytes), one("displayName", Str)] };
static FILE: Message = Message {
    name: "FileData",
    fields: &[one("mimeType", Str), one("fileUri", Str), one("displayName", Str)],
};
static CALL: Message = Message {
    name: "FunctionCall",
    fields: &[
        one("id", Str),
        one("name", Str),
        one("args", Object),
        on(Vertex, list("partialArgs", Object)),
        on(Vertex, one("willContinue", Bool)),
    ],
};
static RESPONSE: Message = Message {
    name: "FunctionResponse",
    fields: &[
        one("id", Str),
        one("name", Str),
        one("response", Object),
        list("parts", msg(&RESPONSE_PART)),
        one("scheduling", Enum(&["SCHEDULING_UNSPECIFIED", "SILENT", "WHEN_IDLE", "INTERRUPT"])),
        one("willContinue", Bool),
    ],
};
static RESPONSE_PART: Message = Message {
    name: "FunctionResponsePart",
    fields: &[one("inlineData", msg(&BLOB)), one("fileData", msg(&FILE))],
};
static CODE: Message = Message {
    name: "ExecutableCode",
    fields: &[one("id", Str), one("language", Enum(&["LANGUAGE_UNSPECIFIED", "PYTHON"])), one("code", Str)],
};
static CODE_RESULT: Message = Message {
    name: "CodeExecutionResult",
    fields: &[
        one("id", Str),
        one(
            "outcome",
            Enum(&["OUTCOME_UNSPECIFIED", "OUTCOME_OK", "OUTCOME_FAILED", "OUTCOME_DEADLINE_EXCEEDED"]),
        ),
        one("output", Str),
    ],
};
static TOOL_CALL: Message =
    Message { name: "ToolCall", fields: &[one("id", Str), one("toolType", Str), one("args", Object)] };
static TOOL_RESPONSE: Message = Message {
    name: "ToolResponse",
    fields: &[one("id", Str), one("toolType", Str), one("response", Object)],
};
static VIDEO: Message = Message {
    name: "VideoMetadata",
    fields: &[one("startOffset", Str), one("endOffset", Str), one("fps", Float), list("contentLayers", Str)],
};
const RESOLUTIONS: &[&str] = &[
    "MEDIA_RESOLUTION_UNSPECIFIED",
    "MEDIA_RESOLUTION_LOW",
    "MEDIA_RESOLUTION_MEDIUM",
    "MEDIA_RESOLUTION_HIGH",
    "MEDIA_RESOLUTION_ULTRA_HIGH",
];
static PART_RESOLUTION: Message =
    Message { name: "MediaResolution", fields: &[one("level", Enum(RESOLUTIONS)), one("numTokens", Int)] };

/// The tools that search; before Gemini 3 they do not go with functions.
pub(super) const SEARCH_TOOLS: &[&str] = &[
    "googleSearch",
    "googleSearchRetrieval",
    "urlContext",
    "fileSearch",
    "enterpriseWebSearch",
    "retrieval",
];

static TOOL: Message = Message {
    name: "Tool",
    fields: &[
        list("functionDeclarations", msg(&DECLARATION)),
        one("googleSearch", Object),
        one("googleSearchRetrieval", Object),
        one("urlContext", Object),
        one("codeExecution", Object),
        one("googleMaps", Object),
        one("computerUse", Object),
        on(Gemini, one("fileSearch", Object)),
        on(Gemini, list("mcpServers", Object)),
        on(Vertex, one("retrieval", Object)),
        on(Vertex, one("enterpriseWebSearch", Object)),
        on(Vertex, one("parallelAiSearch", Object)),
        on(Vertex, one("exaAiSearch", Object)),
    ],
};
static DECLARATION: Message = Message {
    name: "FunctionDeclaration",
    fields: &[
        one("name", Str),
        one("description", Str),
        one("parameters", msg(&SCHEMA)),
        one("parametersJsonSchema", Any),
        one("response", msg(&SCHEMA)),
        one("responseJsonSchema", Any),
        one("behavior", Enum(&["UNSPECIFIED", "BLOCKING", "NON_BLOCKING"])),
    ],
};

/// The types of a proto `Schema`.
pub(super) const TYPES: &[&str] =
    &["TYPE_UNSPECIFIED", "STRING", "NUMBER", "INTEGER", "BOOLEAN", "ARRAY", "OBJECT", "NULL"];

static SCHEMA: Message = Message {
    name: "Schema",
    fields: &[
        one("type", Enum(TYPES)),
        one("format", Str),
        one("title", Str),
        one("description", Str),
        one("nullable", Bool),
        list("enum", Str),
        one("items", msg(&SCHEMA)),
        one("minItems", Int),
        one("maxItems", Int),
        map("properties", msg(&SCHEMA)),
        list("required", Str),
        list("propertyOrdering", Str),
        one("minProperties", Int),
        one("maxProperties", Int),
        one("minLength", Int),
        one("maxLength", Int),
        one("pattern", Str),
        one("minimum", Float),
        one("maximum", Float),
        one("example", Any),
        list("anyOf", msg(&SCHEMA)),
        one("default", Any),
        on(Vertex, one("additionalProperties", Any)),
        on(Vertex, one("ref", Str)),
        on(Vertex, map("defs", msg(&SCHEMA))),
    ],
};

static TOOL_CONFIG: Message = Message {
    name: "ToolConfig",
    fields: &[
        one("functionCallingConfig", msg(&CALLING)),
        one("retrievalConfig", Object),
        on(Gemini, one("includeServerSideToolInvocations", Bool)),
    ],
};
static CALLING: Message = Message {
    name: "FunctionCallingConfig",
    fields: &[
        one("mode", Enum(&["MODE_UNSPECIFIED", "AUTO", "ANY", "NONE", "VALIDATED"])),
        list("allowedFunctionNames", Str),
        on(Vertex, one("streamFunctionCallArguments", Bool)),
    ],
};
static SAFETY: Message = Message {
    name: "SafetySetting",
    fields: &[
        one(
            "category",
            Enum(&[
                "HARM_CATEGORY_HARASSMENT",
                "HARM_CATEGORY_HATE_SPEECH",
                "HARM_CATEGORY_SEXUALLY_EXPLICIT",
                "HARM_CATEGORY_DANGEROUS_CONTENT",
                "HARM_CATEGORY_CIVIC_INTEGRITY",
                "HARM_CATEGORY_JAILBREAK",
                "HARM_CATEGORY_IMAGE_HATE",
                "HARM_CATEGORY_IMAGE_HARASSMENT",
                "HARM_CATEGORY_IMAGE_SEXUALLY_EXPLICIT",
                "HARM_CATEGORY_IMAGE_DANGEROUS_CONTENT",
            ]),
        ),
        one(
            "threshold",
            Enum(&["BLOCK_LOW_AND_ABOVE", "BLOCK_MEDIUM_AND_ABOVE", "BLOCK_ONLY_HIGH", "BLOCK_NONE", "OFF"]),
        ),
        on(Vertex, one("method", Enum(&["SEVERITY", "PROBABILITY"]))),
    ],
};
static GENERATION: Message = Message {
    name: "GenerationConfig",
    fields: &[
        one("temperature", Float),
        one("topP", Float),
        one("topK", Int),
        one("candidateCount", Int),
        one("maxOutputTokens", Int),
        list("stopSequences", Str),
        one("seed", Int),
        one("presencePenalty", Float),
        one("frequencyPenalty", Float),
        one("responseMimeType", Str),
        one("responseSchema", msg(&SCHEMA)),
        one("responseJsonSchema", Any),
        on(Gemini, one("_responseJsonSchema", Any)),
        list("responseModalities", Enum(&["MODALITY_UNSPECIFIED", "TEXT", "IMAGE", "AUDIO", "VIDEO"])),
        one("responseLogprobs", Bool),
        one("logprobs", Int),
        one("mediaResolution", Enum(RESOLUTIONS)),
        one("speechConfig", Object),
        one("imageConfig", Object),
        one("thinkingConfig", msg(&THINKING)),
        on(Gemini, one("audioTranscriptionConfig", Object)),
        on(Gemini, one("translationConfig", Object)),
        on(Gemini, one("responseFormat", Any)),
        on(Gemini, one("enableEnhancedCivicAnswers", Bool)),
        on(Vertex, one("routingConfig", Object)),
        on(Vertex, one("modelConfig", Object)),
        on(Vertex, one("audioTimestamp", Bool)),
    ],
};
static THINKING: Message = Message {
    name: "ThinkingConfig",
    fields: &[
        one("includeThoughts", Bool),
        one("thinkingBudget", Int),
        one(
            "thinkingLevel",
            Enum(&["THINKING_LEVEL_UNSPECIFIED", "MINIMAL", "LOW", "MEDIUM", "HIGH", "XHIGH"]),
        ),
    ],
};
