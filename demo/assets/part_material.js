// Materials of parts: wet eyes with a cornea, teeth and tongue lit through the mouth, lashes that mix with what is behind.

import { CLAY, SHOULDER } from "./material.js";
import { LID_LIGHT, MOUTH_LIGHT } from "./occlusion.js";

const HIGHLIGHT_ROUGHNESS = 0.2; // lamps and windows are no points
const WET = 0.15; // roughness of what is covered by tears

// Reflection of the surroundings in the tear film, by Fresnel's law for water (Schlick's approximation).
const REFLECTION = `#include <lights_fragment_end>
if (viewMode == 0) {
  vec3 mirrored = reflect(-geometry.viewDir, geometry.clearcoatNormal);
  float fresnel = 0.02 + 0.98 * pow(1.0 - saturate(dot(geometry.viewDir, geometry.clearcoatNormal)), 5.0);
  vec3 around = mix(hemisphereLights[0].groundColor * 0.3, hemisphereLights[0].skyColor, smoothstep(-0.3, 0.7, mirrored.y));
  reflectedLight.indirectSpecular += material.clearcoat * fresnel * around;
}`;

// Tears coat the sclera and reflect; the iris lies below the cornea, which reflects instead.
const TEARS = `
material.clearcoat *= smoothstep(irisUv, 1.1 * irisUv, distance(vUv, vec2(0.5)));
material.specularColor = vec3(0.0);`;

// A clear surface shows what it reflects in full, however transparent it is.
const CLEAR = "gl_FragColor = vec4(gl_FragColor.rgb, max(opacity, max(gl_FragColor.r, max(gl_FragColor.g, gl_FragColor.b))));";

// `opening`: {name, upper, lower}, see `Edges`, or null for parts in the open.
export function partMaterial(slot, pack, texture, opening, viewMode) {
  const isEye = slot.startsWith("eye_"), isCornea = slot.startsWith("cornea_"), isMixed = pack.alphaMode !== "OPAQUE";
  const material = new THREE.MeshPhysicalMaterial({
    metalness: 0, roughness: pack.roughness, map: texture,
    clearcoat: isEye || pack.roughness < WET ? 1 : 0, clearcoatRoughness: HIGHLIGHT_ROUGHNESS,
    side: isMixed && !isCornea ? THREE.DoubleSide : THREE.FrontSide,
    transparent: pack.alphaMode === "BLEND", depthWrite: pack.alphaMode !== "BLEND",
    alphaTest: pack.alphaMode === "MASK" ? pack.alphaCutoff : 0, alphaToCoverage: pack.alphaMode === "MASK",
  });
  if (isCornea) {
    Object.assign(material, {
      map: null, color: new THREE.Color(0), opacity: 0, roughness: 1, blending: THREE.CustomBlending,
      blendSrc: THREE.OneFactor, blendDst: THREE.OneMinusSrcAlphaFactor,
    });
  }
  const light = !opening ? "" : opening.name === "mouth" ? MOUTH_LIGHT : LID_LIGHT;
  const own = {
    toHead: { value: new THREE.Matrix4() }, viewMode, irisUv: { value: pack.irisUv ?? 0 },
    upperEdge: { value: opening?.upper }, lowerEdge: { value: opening?.lower },
  };
  material.userData.toHead = own.toHead.value;
  material.customProgramCacheKey = () => `part ${isEye} ${isCornea} ${opening?.name === "mouth"} ${Boolean(opening)}`;
  material.onBeforeCompile = (shader) => {
    Object.assign(shader.uniforms, own);
    shader.vertexShader = shader.vertexShader
      .replace("#include <common>", `#include <common>\nuniform mat4 toHead;\nvarying float vLight;\n${light}`)
      .replace("#include <begin_vertex>", `#include <begin_vertex>
        vLight = ${opening ? "openingLight((toHead * vec4(position, 1.0)).xyz)" : "1.0"};`);
    shader.fragmentShader = shader.fragmentShader
      .replace("#include <common>", "#include <common>\nuniform int viewMode;\nuniform float irisUv;\nvarying float vLight;")
      .replace("#include <color_fragment>", CLAY)
      .replace("#include <lights_physical_fragment>", `#include <lights_physical_fragment>
        ${isEye ? TEARS : isCornea ? "material.specularColor = vec3(0.0);" : ""}
        if (viewMode != 0) { ${isEye ? "material.clearcoat = 0.0;" : ""} material.specularRoughness = 0.7; }`)
      .replace("#include <lights_fragment_end>", isEye || isCornea ? REFLECTION : "#include <lights_fragment_end>")
      .replace("#include <tonemapping_fragment>", `gl_FragColor.rgb *= vLight;\n${SHOULDER}`)
      .replace("#include <dithering_fragment>", `#include <dithering_fragment>
        ${isCornea ? CLEAR : ""}
        if (viewMode == 2) gl_FragColor = vec4(0.5 * normal + 0.5, 1.0);`);
  };
  return material;
}
