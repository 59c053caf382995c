// Materials of parts: wet eyes with a cornea, teeth and tongue lit through the mouth, lashes that mix with what is behind.

import { CLAY, SHOULDER } from "./material.js";
import { LID_LIGHT, MOUTH_LIGHT } from "./occlusion.js";

const CORNEA_RADIUS = 0.38; // of its rim, by that of the eyeball
const CORNEA_CURVATURE = 0.52; // its radius of curvature, by that of the eyeball

// Reflection of the surroundings in the tear film, by Fresnel's law for water (Schlick's approximation).
const REFLECTION = `#include <lights_fragment_end>
if (viewMode == 0) {
  vec3 mirrored = reflect(-geometry.viewDir, geometry.clearcoatNormal);
  float fresnel = 0.02 + 0.98 * pow(1.0 - saturate(dot(geometry.viewDir, geometry.clearcoatNormal)), 5.0);
  vec3 around = mix(hemisphereLights[0].groundColor * 0.3, hemisphereLights[0].skyColor, smoothstep(-0.3, 0.7, mirrored.y));
  reflectedLight.indirectSpecular += fresnel * around;
}`;

// The cornea is a bulge of clear coat; the iris below it is flat.
const CORNEA = `
float aside = length(vBall.xy), sine = min(aside / ${CORNEA_CURVATURE}, 0.9);
vec3 bulge = vec3(vBall.xy / max(aside, 1e-4) * sine, sqrt(1.0 - sine * sine));
float inCornea = vBall.z > 0.0 ? 1.0 - smoothstep(0.9, 1.1, aside / ${CORNEA_RADIUS}) : 0.0;
vec3 clearcoatNormal = normalize(normalMatrix * normalize(mix(normalize(vBall), bulge, inCornea)));`;

// `opening`: {name, upper, lower}, see `Edges`, or null for parts in the open.
export function partMaterial(pack, texture, opening, viewMode) {
  const isEye = Boolean(pack.ball), isMixed = pack.alphaMode !== "OPAQUE";
  const material = new THREE.MeshPhysicalMaterial({
    metalness: 0, roughness: isEye ? 0.45 : pack.roughness, map: texture,
    clearcoat: isEye ? 1 : 0, clearcoatRoughness: isEye ? 0.2 : 0,
    side: isMixed ? THREE.DoubleSide : THREE.FrontSide,
    transparent: pack.alphaMode === "BLEND", depthWrite: pack.alphaMode !== "BLEND",
    alphaTest: pack.alphaMode === "MASK" ? pack.alphaCutoff : 0, alphaToCoverage: pack.alphaMode === "MASK",
  });
  const light = !opening ? "" : opening.name === "mouth" ? MOUTH_LIGHT : LID_LIGHT;
  const [center, radius] = isEye ? [pack.ball.slice(0, 3), pack.ball[3]] : [[0, 0, 0], 1];
  const own = { toHead: { value: new THREE.Matrix4() }, ballCenter: { value: new THREE.Vector3(...center) }, ballRadius: { value: radius } };
  material.userData.toHead = own.toHead.value;
  material.customProgramCacheKey = () => `part ${isEye} ${opening?.name === "mouth"} ${Boolean(opening)}`;
  material.onBeforeCompile = (shader) => {
    Object.assign(shader.uniforms, own, { viewMode, upperEdge: { value: opening?.upper }, lowerEdge: { value: opening?.lower } });
    shader.vertexShader = shader.vertexShader
      .replace("#include <common>", `#include <common>
        uniform mat4 toHead;
        uniform vec3 ballCenter;
        uniform float ballRadius;
        varying float vLight;
        varying vec3 vBall;
        ${light}`)
      .replace("#include <begin_vertex>", `#include <begin_vertex>
        vBall = (position - ballCenter) / ballRadius;
        vLight = ${opening ? "openingLight((toHead * vec4(position, 1.0)).xyz)" : "1.0"};`);
    shader.fragmentShader = shader.fragmentShader
      .replace("#include <common>", `#include <common>
        uniform int viewMode;
        varying float vLight;
        varying vec3 vBall;
        ${isEye ? "uniform mat3 normalMatrix;" : ""}`)
      .replace("#include <color_fragment>", CLAY)
      .replace("#include <lights_physical_fragment>",
        `#include <lights_physical_fragment>\nif (viewMode != 0) { ${isEye ? "material.clearcoat = 0.0;" : ""} material.specularRoughness = 0.7; }`)
      .replace("#include <clearcoat_normal_fragment_begin>", isEye ? CORNEA : "#include <clearcoat_normal_fragment_begin>")
      .replace("#include <lights_fragment_end>", isEye ? REFLECTION : "#include <lights_fragment_end>")
      .replace("#include <tonemapping_fragment>", `gl_FragColor.rgb *= vLight;\n${SHOULDER}`)
      .replace("#include <dithering_fragment>",
        "#include <dithering_fragment>\nif (viewMode == 2) gl_FragColor = vec4(0.5 * normal + 0.5, 1.0);");
  };
  return material;
}
